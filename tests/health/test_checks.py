"""A file of rules that cannot be used is found before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from health.checks import check_rules


@pytest.fixture
def bad(tmp_path: Path, settings: Settings) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text("[rules.temp_high]\nquiet = 1\n")
    settings.HEALTH_RULES = str(path)
    return path


def test_the_check_names_file_rule_and_key(bad: Path, settings: Settings) -> None:
    (found,) = check_rules()
    assert found.msg == f"HEALTH_RULES: {bad}: rules.temp_high.quiet: is 1; true or false is allowed"
    settings.HEALTH_RULES = ""
    assert check_rules() == []


def test_the_web_service_does_not_start(bad: Path) -> None:
    with pytest.raises(
        CommandError, match=r"HEALTH_RULES \(--health-rules\): .*rules.temp_high.quiet: is 1; true or false"
    ):
        call_command("serve")
