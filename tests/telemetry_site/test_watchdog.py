from __future__ import annotations

from telemetry_site.watchdog import Watchdog


def test_what_takes_too_long_is_told_until_it_has_ended() -> None:
    now = 0.0
    watch = Watchdog(lambda: now)
    with watch.doing("a read", 60):
        with watch.doing("a write", 10):
            now = 30.0
            assert watch.stuck() == ["a write has not ended for 30 s"]
        assert watch.stuck() == []
        now = 61.0
        assert watch.stuck() == ["a read has not ended for 61 s"]
    assert watch.stuck() == []


def test_what_fails_has_ended_too() -> None:
    now = 0.0
    watch = Watchdog(lambda: now)
    try:
        with watch.doing("a read", 1):
            raise OSError
    except OSError:
        now = 5.0
    assert watch.stuck() == []
