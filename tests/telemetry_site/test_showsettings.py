from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command

from telemetry_site.options import OPTIONS


def _lines() -> dict[str, str]:
    out = StringIO()
    call_command("showsettings", stdout=out)
    return {line.split()[0]: line for line in out.getvalue().splitlines()}


def test_it_shows_every_setting_with_its_value_and_where_that_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_SIZE", "77")
    lines = _lines()
    assert list(lines) == [option.name for option in OPTIONS]
    assert lines["BATCH_SIZE"].split()[1:3] == ["77", "set"]
    assert lines["FSYNC"].split()[1:3] == ["always", "default"]


def test_it_never_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_TOKEN", "hunter2")
    monkeypatch.setenv("TARGETS", "http://user:hunter2@node-1:9400/metrics")
    assert "hunter2" not in "".join(_lines().values())
    assert _lines()["BROKER_TOKEN"].split()[1] == "(hidden)"
