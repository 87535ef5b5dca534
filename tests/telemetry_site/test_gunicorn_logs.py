from __future__ import annotations

import logging

import pytest
from gunicorn.config import Config

from telemetry_site.gunicorn_logs import GunicornLogger


def test_gunicorn_hands_its_lines_to_the_handlers_of_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, object]] = []
    monkeypatch.setattr(logging.config, "dictConfig", told.append)
    monkeypatch.setenv("LOG_FORMAT", "json")
    logger = GunicornLogger(Config())
    assert told[0]["handlers"]["stderr"]["formatter"] == "json"  # type: ignore[index]
    for each in (logger.error_log, logger.access_log):
        assert each.propagate
        assert each.handlers == []
    logger.reopen_files()
