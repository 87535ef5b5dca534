from __future__ import annotations

import asyncio
import io
import logging
import sys
from collections import Counter

import pytest

from ingest.streamer import report as module
from ingest.streamer.report import Backlog, Report, progress_bar, report_often
from tests.ingest.wiring import until


def test_a_report_is_one_line_that_leaves_out_what_is_not() -> None:
    assert Report().line() == "0 readings read; 0 sent and answered in 0 batches"
    report = Report(
        10,
        8,
        2,
        1,
        Counter({"blank": 2, "future": 1, "bad_label": 3, "not_a_gpu": 4}),
        65.4,
        backlog=Backlog(2_500_000, 1_234, 61.0),
    )
    assert report.line() == (
        "10 readings read; 8 sent and answered in 2 batches; refused: blank 2, future 1; remarked on: bad_label 3; "
        "passed over: not_a_gpu 4; 1 batches waiting, 1m 5s behind; "
        "2.5 MB to go (about 1,234 rows, 1m 1s at this pace)"
    )
    report.backlog = Backlog(0, 0, None)
    assert "to go" not in report.line()


def test_a_backlog_without_a_pace_tells_no_time() -> None:
    assert str(Backlog(2_500_000, 0, None)) == "2.5 MB to go (about 0 rows)"


async def test_it_is_logged_now_and_then_as_it_is_by_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "REPORT_SECONDS", 0.01)
    caplog.set_level(logging.INFO)
    report = Report()

    def refresh() -> None:
        report.read += 1

    report.refresh = refresh
    task = asyncio.create_task(report_often(report))
    await until(lambda: "3 readings read" in caplog.text)
    task.cancel()
    assert "1 readings read" in caplog.text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress_bar(1000, "capture.csv") as progress:
        progress(250)
        progress(1000)
    assert "capture.csv" in screen.getvalue()
    assert "100%" in screen.getvalue()


def test_where_nobody_looks_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with progress_bar(1000, "capture.csv") as progress:
        progress(250)
    assert pipe.getvalue() == ""
