from __future__ import annotations

import logging
from pathlib import Path

import pytest

from broker.client.client import Message
from ingest.collector.attempts import CAREFUL_MESSAGES, Attempts


def message(offset: int, message_id: str = "") -> Message:
    return Message(offset, 0, message_id or f"id:{offset}", b"")


def begun(tmp_path: Path, offset: int) -> Attempts:
    attempts = Attempts(tmp_path, "c")
    attempts.begin_run(offset)
    return attempts


def test_a_message_that_kills_each_run_is_begun_three_times(tmp_path: Path) -> None:
    assert not begun(tmp_path, 5).careful  # killed in the midst of many messages
    for _ in range(2):
        run = begun(tmp_path, 5)
        assert run.careful
        assert not run.is_hopeless(message(5))
    run = begun(tmp_path, 5)
    assert run.is_hopeless(message(5))
    run.committed()
    assert not run.is_hopeless(message(6))


def test_the_message_may_be_behind_others_and_the_first_kill_after_many_commits(tmp_path: Path) -> None:
    begun(tmp_path, 0).committed()  # and many more, up to 99; then killed
    assert not begun(tmp_path, 100).careful
    run = begun(tmp_path, 100)
    for offset in (100, 101, 102):
        assert not run.is_hopeless(message(offset))
        run.committed()
    assert not run.is_hopeless(message(103))
    assert begun(tmp_path, 103).is_hopeless(message(103))


def test_one_kill_makes_no_message_hopeless_whatever_came_before(tmp_path: Path) -> None:
    for _ in range(5):
        run = begun(tmp_path, 5)
        assert not run.is_hopeless(message(5))
        run.end_run()
    for offset in range(5, 15):  # killed in each run, and each has come further
        assert not begun(tmp_path, offset).careful


def test_another_message_at_that_offset_is_another_message(tmp_path: Path) -> None:
    begun(tmp_path, 5)
    for _ in range(2):
        begun(tmp_path, 5).is_hopeless(message(5))
    assert not begun(tmp_path, 5).is_hopeless(message(5, "of a new log"))


def test_a_wait_for_the_store_is_not_the_messages_fault(tmp_path: Path) -> None:
    begun(tmp_path, 5)
    for _ in range(6):
        run = begun(tmp_path, 5)
        assert not run.is_hopeless(message(5))
        run.forgive()


def test_it_is_careful_for_so_many_messages_and_writes_nothing_for_one_else(tmp_path: Path) -> None:
    run = begun(tmp_path, 0)
    run.committed()
    run.path.unlink()
    for offset in range(100):
        run.is_hopeless(message(offset))
        run.committed()
    assert not run.path.exists()
    begun(tmp_path, 7)
    run = begun(tmp_path, 7)
    for offset in range(CAREFUL_MESSAGES):
        assert run.careful
        run.is_hopeless(message(7 + offset))
        run.committed()
    assert not run.careful


def test_an_end_in_order_leaves_no_note(tmp_path: Path) -> None:
    run = begun(tmp_path, 5)
    assert run.path.exists()
    run.end_run()
    assert not run.path.exists()
    run.end_run()


def test_a_note_that_cannot_be_written_or_read_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = begun(tmp_path, 5)
    run.path.write_bytes(b"{torn")
    assert not begun(tmp_path, 5).careful
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.ERROR):
        run = Attempts(tmp_path / "file", "c")
        run.begin_run(5)
        run.is_hopeless(message(5))
        run.committed()
        run.end_run()
    assert len([each for each in caplog.records if "cannot note" in each.getMessage()]) == 1
