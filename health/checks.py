"""What ``manage.py check`` says of the rules of health."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, register

from health.rule_table import rules_now
from health.rules.errors import RulesError


@register()
def check_rules(**kwargs: Any) -> list[CheckMessage]:
    """The file that HEALTH_RULES names has to be usable."""
    try:
        rules_now()
    except RulesError as error:
        return [Error(f"HEALTH_RULES: {error}", id="health.E001")]
    return []
