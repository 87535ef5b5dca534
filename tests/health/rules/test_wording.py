"""Codes stand in summaries in words."""

from __future__ import annotations

import pytest

from health.rule_table import rules_now
from health.rules.wording import WORDINGS


@pytest.mark.parametrize(
    ("wording", "value", "words"),
    [
        ("recovery", 1, "a reset of the GPU"),
        ("recovery", 9, "recovery action 9"),
        ("fabric", 2, "unhealthy"),
        ("reasons", 0x88, "hardware slowdown, power brake"),
        ("reasons", 0x8C, "hardware slowdown, power brake"),
        ("reasons", 0x4, "power cap"),
        ("reasons", 0x8000, "mask 32768"),
    ],
)
def test_a_code_has_its_words(wording: str, value: float, words: str) -> None:
    assert WORDINGS[wording](value) == words


def test_the_rules_say_codes_in_words() -> None:
    rules = rules_now()
    assert rules["recovery_action"].summary({"GPU_RECOVERY_ACTION": 2.0}) == "The driver asks for a reboot of the host"
    assert rules["hw_slowdown"].summary({}) == "Clocks are held down: ?"
