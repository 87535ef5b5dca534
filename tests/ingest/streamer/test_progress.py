from __future__ import annotations

import io
import sys

import pytest

from ingest.streamer.report import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress_bar(1000, "capture.csv") as progress:
        progress.at(250)
        progress.at(1000)
    assert "capture.csv" in screen.getvalue()
    assert "100%" in screen.getvalue()


def test_where_nobody_looks_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with progress_bar(1000, "capture.csv") as progress:
        progress.at(250)
    assert pipe.getvalue() == ""
