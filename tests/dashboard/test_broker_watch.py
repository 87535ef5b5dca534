"""dashboard.broker_watch: a broker that is away costs little, and its last figures stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_django import Settings

from api.views.stats import ask_broker
from dashboard import broker_watch
from dashboard.broker_watch import BrokerWatch
from tests.api.broker_thread import broker_in_thread


def test_the_last_good_figures_stay_while_the_broker_is_away(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_watch, "FRESH_SECONDS", 0.0)
    watch = BrokerWatch()
    with broker_in_thread(tmp_path / "log", payloads=[b"{}"] * 3, fsync="never") as port:
        settings.MQ_HOST, settings.MQ_PORT = "127.0.0.1", port
        there = watch.now()
    away = watch.now()
    assert there.available
    assert there.good_ns is not None
    assert (there.broker.total_messages, [each.id for each in there.subscribers]) == (3, ["c1"])
    assert not away.available
    assert away.error
    assert (away.broker, away.subscribers, away.good_ns) == (there.broker, there.subscribers, there.good_ns)


def test_a_broker_that_never_answered_has_no_figures(settings: Settings) -> None:
    settings.MQ_HOST, settings.MQ_PORT = "no-such-host.invalid", 1
    now = BrokerWatch().now()
    assert (now.available, now.good_ns, now.broker.total_messages, now.subscribers) == (False, None, None, [])


def test_a_broker_that_is_away_is_not_asked_by_each_page(settings: Settings) -> None:
    settings.MQ_HOST, settings.MQ_PORT = "no-such-host.invalid", 1
    asked = []

    def ask() -> broker_watch.Answer:
        asked.append(1)
        return ask_broker()

    watch = BrokerWatch(ask)
    assert watch.now() == watch.now()
    assert len(asked) == 1
