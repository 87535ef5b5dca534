"""What ``manage.py check`` says of the files that settings of health name."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from health.rule_table import rules_now
from health.rules.errors import RulesError
from health.usage.prices import PricesError, load_prices


@register()
def check_rules(**kwargs: Any) -> list[CheckMessage]:
    """The file that HEALTH_RULES names has to be usable."""
    try:
        rules_now()
    except RulesError as error:
        return [Error(f"HEALTH_RULES: {error}", id="health.E001")]
    return []


@register()
def check_prices(**kwargs: Any) -> list[CheckMessage]:
    """The file that USAGE_PRICES names has to be usable."""
    try:
        load_prices(settings.USAGE_PRICES)
    except PricesError as error:
        return [Error(f"USAGE_PRICES: {error}", id="health.E002")]
    return []
