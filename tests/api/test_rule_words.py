"""api.rule_words: a rule's condition in one line."""

from __future__ import annotations

import re

from pytest_django import Settings

from api.rule_words import condition_words
from health.rule_table import rules_now
from health.rules.conditions import compile_condition
from health.rules.model import Level, Rule
from readings.times import SECOND


def rule(**fields: object) -> Rule:
    given = {"name": "r", "title": "R", "finds": "f", "judge": "condition", "entity": "gpu", "severity": "critical"}
    return Rule(**(given | {"action": "none"} | fields))  # type: ignore[arg-type]


def test_numbers_stand_in_place_of_their_names() -> None:
    names = {"above": 85.0, "hysteresis": 2.0}
    when = compile_condition("GPU_TEMP > above", names)
    until = compile_condition("GPU_TEMP <= above - hysteresis", names)
    words = condition_words(
        rule(
            settings=names,
            models={"H100": {"above": 90.0}},
            levels=(
                Level("warning", when, until, for_ns=300 * SECOND, clear_samples=3),
                Level("critical", when, samples=3, clear_samples=2, clear_ns=60 * SECOND),
            ),
            latch="reset",
        )
    )
    assert words == (
        "warning when GPU_TEMP > 85 for 5m, until GPU_TEMP <= 85 - 2 for 3 samples;"
        " critical when GPU_TEMP > 85 for 3 samples, until not so for 2 samples and 1m;"
        " H100: above 90; ends by a reset or by a person"
    )


def test_a_rule_judged_in_code_has_its_numbers() -> None:
    assert condition_words(rule(judge="absence", settings={"samples": 3, "after_s": 120.0})) == "samples 3, after 2m"
    assert condition_words(rule(judge="point")) == ""
    assert condition_words(rule(judge="xid", latch="person")) == "ends by a person"


def test_every_rule_of_the_product_can_be_said(settings: Settings) -> None:
    settings.HEALTH_RULES = ""
    for each in rules_now().values():
        words = condition_words(each)
        assert words or each.judge != "condition", each.name
        for level in each.levels:
            unsaid = {name for name in level.when.settings if re.search(rf"\b{name}\b", words.split("; ")[0])}
            assert not unsaid, (each.name, unsaid)
