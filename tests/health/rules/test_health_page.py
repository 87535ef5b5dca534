"""docs/health.md says what the rules are."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from health.rules.loading import load_rules
from tests.health.rules.health_page import PAGE, page_now


def test_its_tables_are_those_of_the_rules() -> None:
    assert page_now(PAGE.read_text()) == PAGE.read_text(), "run: python -m tests.health.rules.health_page"


def test_a_table_that_is_not_the_rules_is_found() -> None:
    text = PAGE.read_text()
    assert page_now(text.replace("`temp_high`", "`temp_hihg`", 1)) == text.replace("`temp_hihg`", "`temp_high`", 1)
    for name in load_rules():
        assert text.count(f"| `{name}` (") == 1


def test_its_example_works(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    path = tmp_path / "rules.toml"
    path.write_text(example)
    built_in, rules = load_rules(), load_rules(path)
    changed = {name for name in rules if rules.get(name) != built_in.get(name)}
    assert changed == set(tomllib.loads(example)["rules"])
    assert rules["fan_stopped"].summary({"FAN_SPEED": 0.0, "GPU_TEMP": 70.0}) == "Fan at 0 % at 70 °C"
    assert rules["idle_held"].levels[0].for_ns == 3600 * 10**9
    assert rules["idle_held"].levels[0].clear_samples == 3
    assert rules["clock_low"].severity == "critical"
    assert rules.xid(94).kind == "fatal"
