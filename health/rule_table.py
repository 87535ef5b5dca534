"""The rules that count in this process: those that come with the product, with the changes of HEALTH_RULES."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from django.conf import settings

from health.rules.loading import load_rules
from health.rules.model import Rules


def rules_now() -> Rules:
    """The rules. They are read once. Raises RulesError, one line, for a file that cannot be used."""
    return _rules(settings.HEALTH_RULES)


@lru_cache(maxsize=4)
def _rules(path: str) -> Rules:
    return load_rules(Path(path) if path else None)
