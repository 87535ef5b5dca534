"""The bench of long ranges: small ones are answered from roll-ups, and a wrong answer is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.longrange import HOUR_NS, READINGS, SETTLES_SOON, HostHours, LongQuestion, WrongAnswer, check, measure, told
from readings.times import format_time
from tests.influxd import Influxd, find_binary

DAY = LongQuestion("day", 4, 24, 3, 300.0)
MONTH = LongQuestion("month", 2, 48, 0, 1000.0)
START_NS = 1_752_868_800_000_000_000


@pytest.fixture(params=["sqlite", "influxdb"])
def server(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Influxd | None]:
    if request.param == "sqlite":
        yield None
        return
    for name, value in SETTLES_SOON.items():
        monkeypatch.setenv(name, value)
    started = Influxd(find_binary(), tmp_path / "influxd")
    started.start()
    yield started
    started.stop()


def test_both_questions_are_answered(server: Influxd | None, tmp_path: Path) -> None:
    for question in (DAY, MONTH):
        found = measure(question, "influxdb" if server else "sqlite", 2, 2, tmp_path, server)
        assert found["windows"] == question.hosts * question.hours
        assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["max_ms"]
        assert "goal" in told(found)


def right_answer(question: LongQuestion, written: HostHours) -> dict[str, Any]:
    """As the service gives it."""
    places = written.totals[:, :, 0].sum(axis=0).argsort()[::-1][: question.groups].tolist()
    return {
        "tier": "1h",
        "data": [
            {
                "group": {"host": written.hostnames[place]},
                "points": [
                    [format_time(START_NS + hour * HOUR_NS), total / READINGS]
                    for hour, total in enumerate(written.totals[:, place, 0].tolist())
                ],
            }
            for place in places
        ],
    }


def wrong_value(body: dict[str, Any]) -> None:
    body["data"][1]["points"][7][1] += 0.001


def no_value(body: dict[str, Any]) -> None:
    body["data"][1]["points"][7][1] = None


def other_time(body: dict[str, Any]) -> None:
    body["data"][0]["points"].pop()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda body: body.update(tier="raw"), "tier raw"),
        (lambda body: body.update(data=[]), "0 hosts, not 3"),
        (lambda body: body["data"].reverse(), "largest first"),
        (lambda body: body["data"].__setitem__(0, body["data"][1]), "twice"),
        (wrong_value, "at 2025-07-19T03:00:00Z has "),
        (no_value, "at 2025-07-19T03:00:00Z has None"),
        (other_time, "other hours"),
    ],
)
def test_a_wrong_answer_is_told(spoil: Callable[[dict[str, Any]], None], words: str) -> None:
    written = HostHours.of(DAY.hosts, DAY.hours, 1, START_NS)
    body = right_answer(DAY, written)
    check(body, DAY, written)
    spoil(body)
    with pytest.raises(WrongAnswer, match=words):
        check(body, DAY, written)
