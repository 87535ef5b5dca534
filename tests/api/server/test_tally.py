"""What clients do wrong by the hundred is told in few lines."""

from __future__ import annotations

import logging

import pytest

from api.server import limits
from api.server.tally import Tally


def test_a_burst_is_one_line_and_later_ones_wait(caplog: pytest.LogCaptureFixture) -> None:
    tally = Tally(logging.getLogger("test"))
    tally.tell(0.0)
    assert caplog.messages == []
    for port in range(200):
        tally.add("too slow", f"192.0.2.{port}")
    tally.tell(1.0)
    assert caplog.messages == ["too slow: 200 connections (the last from 192.0.2.199)"]
    tally.add("too slow", "192.0.2.1")
    tally.tell(2.0)
    assert len(caplog.messages) == 1
    tally.tell(1.0 + limits.TELL_SECONDS)
    assert caplog.messages[1:] == ["too slow: 1 connections (the last from 192.0.2.1)"]
