from __future__ import annotations

import logging

import pytest

from broker.server.bursts import WINDOW_S, BurstLog


def test_a_burst_is_a_few_lines_and_a_count(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    lines = BurstLog(logging.getLogger("bursts"), lambda: now)
    for number in range(1000):
        lines.say(logging.INFO, "client %d came", number, most=2)
    lines.say(logging.INFO, "something else")
    assert caplog.messages == ["client 0 came", "client 1 came", "something else"]
    now = WINDOW_S
    lines.say(logging.INFO, "client %d came", 1000, most=2)
    assert caplog.messages[3:] == ["998 more lines like the next one within 10 s", "client 1000 came"]
    now = 2 * WINDOW_S
    lines.say(logging.INFO, "client %d came", 1001, most=2)
    assert caplog.messages[5:] == ["client 1001 came"]
