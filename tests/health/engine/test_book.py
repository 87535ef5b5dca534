"""The book of open events makes the fewest transitions that say everything."""

from __future__ import annotations

from health.engine.book import POINT_NS, Book
from health.engine.events import Entity, EntityPlace, Key
from tests.health.engine.building import HOUR, MINUTE, START, make_rules

KEY = Key("sample_loss", Entity("gpu", "GPU-1"))


def test_an_event_that_still_holds_is_written_once_a_minute() -> None:
    book = Book(make_rules())
    book.open(KEY, START, "warning", EntityPlace("node-1"))
    assert [str(each.change) for each in book.drain()] == ["opened"]
    for second in range(0, 180, 10):
        book.hold(KEY, START + second * 1_000_000_000)
        if second < 60:
            assert book.touched() == []
    assert [each.last_ns - START for each in book.touched()] == [170 * 1_000_000_000]
    assert book.touched() == []


def test_a_point_counts_once_an_hour() -> None:
    book = Book(make_rules())
    for at_ns in (START, START + MINUTE, START + MINUTE + POINT_NS):
        book.point(KEY, at_ns, "info", EntityPlace())
    said = [(str(each.change), each.count) for each in book.drain()]
    assert said == [("opened", 1), ("closed", 1), ("repeated", 2), ("opened", 1), ("closed", 1)]
    book.expire(START + 10 * HOUR, HOUR)
    assert book.state().points == []


def test_severity_never_falls() -> None:
    book = Book(make_rules())
    book.open(KEY, START, "warning", EntityPlace())
    book.raise_to(KEY, START + 1, "critical")
    book.raise_to(KEY, START + 2, "warning")
    assert book.events[KEY].severity == "critical"
    assert [str(each.change) for each in book.drain()] == ["opened", "raised"]
