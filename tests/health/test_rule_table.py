"""health.rule_table: the rules of this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_django import Settings

from health.rule_table import rules_now
from health.rules.errors import RulesError


def test_they_are_those_of_the_product_with_the_changes_of_the_users_file(settings: Settings, tmp_path: Path) -> None:
    settings.HEALTH_RULES = ""
    plain = rules_now()
    assert rules_now() is plain
    path = tmp_path / "rules.toml"
    path.write_text('[rules.temp_high]\ntitle = "Too hot"\n')
    settings.HEALTH_RULES = str(path)
    changed = rules_now()
    assert changed["temp_high"].title == "Too hot" != plain["temp_high"].title
    assert list(changed) == list(plain)


def test_a_file_that_cannot_be_used_is_said_in_one_line(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("[rules.temp_hihg]\n")
    settings.HEALTH_RULES = str(path)
    with pytest.raises(RulesError) as error:
        rules_now()
    assert "temp_hihg" in str(error.value)
    assert "\n" not in str(error.value)
