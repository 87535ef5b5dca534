"""The parts that /api/v1/stats and /metrics are made of."""

from __future__ import annotations

from pathlib import Path

from pytest_django import Settings

from api.views.stats import ask_broker, broker_answer, total_refused
from inventory.models import CollectorStatus
from tests.api.broker_thread import broker_in_thread


def test_a_wrong_token_is_an_answer_and_no_fault(settings: Settings, tmp_path: Path) -> None:
    settings.BROKER_TOKEN = ""
    settings.MQ_HOST = "no-such-host.invalid"
    broker = ask_broker()
    assert broker.error
    assert "\n" not in broker.error
    answer = broker_answer(broker)
    assert answer["available"] is False
    assert answer["address"] == f"no-such-host.invalid:{settings.MQ_PORT}"


def test_the_figures_of_a_broker_that_is_there(settings: Settings, tmp_path: Path) -> None:
    with broker_in_thread(tmp_path / "log", payloads=[b"{}"] * 2, fsync="never") as port:
        settings.MQ_HOST, settings.MQ_PORT = "127.0.0.1", port
        broker = ask_broker()
    assert broker.error is None
    assert None not in broker.figures.values()
    assert all(None not in each.values() for each in broker.subscribers)


def test_refusals_add_up_over_collectors() -> None:
    collectors = [
        CollectorStatus(collector_id="a", refused={"blank": 1, "future": 2}),
        CollectorStatus(collector_id="b", refused={"blank": 3}),
    ]
    assert total_refused(collectors) == {"blank": 4, "future": 2}
    assert total_refused([]) == {}
