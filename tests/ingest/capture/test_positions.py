from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.capture.position import Positions, ResumeState, ResumeStore, SourcePosition
from ingest.capture.source import CsvSource
from ingest.errors import StateError
from tests.ingest.captures import write_capture
from tests.ingest.wiring import until


@pytest.fixture
def source(tmp_path: Path) -> Iterator[CsvSource]:
    source = CsvSource(str(write_capture(tmp_path / "capture.csv")), needs_timestamp=True)
    yield source
    source.close()


@pytest.fixture
def store(tmp_path: Path) -> ResumeStore:
    store = ResumeStore(tmp_path, "streamer-1", "capture.csv")
    store.prepare()
    return store


def place(store: ResumeStore) -> tuple[int, int, int] | None:
    state = store.load()
    return None if state is None else (state.position, state.line, state.shift_ns)


def test_the_position_moves_over_answered_batches_in_order(source: CsvSource, store: ResumeStore) -> None:
    positions = Positions(store, lambda reached: source.state_at(reached, "shift"))
    for number in (1, 2, 3):
        positions.add(10 * number, SourcePosition(100 * number, number, 7))
    positions.answered(9)
    positions.finish(done=False)
    assert place(store) is None

    positions = Positions(store, lambda reached: source.state_at(reached, "shift"))
    for number in (1, 2, 3):
        positions.add(10 * number, SourcePosition(100 * number, number, 7))
    positions.answered(29)
    positions.finish(done=False)
    assert place(store) == (200, 2, 7)


def test_what_was_answered_before_it_is_added_counts_at_once(source: CsvSource, store: ResumeStore) -> None:
    positions = Positions(store, lambda reached: source.state_at(reached, "shift"))
    positions.answered(4)
    positions.add(4, SourcePosition(100, 1, 0))
    assert positions.reached == SourcePosition(100, 1, 0)


def test_a_finished_run_forgets_and_a_late_save_changes_nothing(source: CsvSource, store: ResumeStore) -> None:
    positions = Positions(store, lambda reached: source.state_at(reached, "shift"))
    positions.add(0, SourcePosition(100, 1, 0))
    positions._save()
    assert place(store) is not None
    positions.finish(done=True)
    positions._save()
    assert place(store) is None


async def test_positions_are_kept_as_they_move(
    source: CsvSource, store: ResumeStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    positions = Positions(store, lambda reached: source.state_at(reached, "source"))
    keeping = asyncio.create_task(positions.keep())
    positions.add(0, SourcePosition(100, 1, 0))
    await until(lambda: place(store) == (100, 1, 0))

    def full(self: ResumeStore, state: ResumeState) -> None:
        raise StateError("disk full")

    save = ResumeStore.save
    with caplog.at_level(logging.ERROR):
        monkeypatch.setattr(ResumeStore, "save", full)
        for position in (200, 300):
            positions.add(0, SourcePosition(position, 2, 0))
            await until(lambda: not positions._moved.is_set())
            await asyncio.sleep(0.05)
    assert caplog.text.count("disk full") == 1
    monkeypatch.setattr(ResumeStore, "save", save)
    positions.add(0, SourcePosition(400, 4, 0))
    await until(lambda: place(store) == (400, 4, 0))
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
