"""Rate limits over threads and processes, also without their file; and which address they count."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import RequestFactory
from pytest_django import Settings

from api.auth import throttling
from api.auth.throttling import Throttle, client_address, network_of

ROOT = Path(__file__).resolve().parents[3]
SECOND = 1_000_000_000


@pytest.fixture
def throttle(tmp_path: Path) -> Iterator[Throttle]:
    found = Throttle(tmp_path / "new" / "rates.sqlite3")
    yield found
    found.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    now = [1_800_000_000 * SECOND]
    monkeypatch.setattr("api.auth.throttling.time.time_ns", lambda: now[0])
    return now


def test_the_whole_allowance_may_come_at_once_and_then_one_by_one(throttle: Throttle, clock: list[int]) -> None:
    assert [throttle.take("a", 3, 60) for _ in range(3)] == [0, 0, 0]
    assert throttle.take("a", 3, 60) == 20
    clock[0] += 19 * SECOND
    assert throttle.take("a", 3, 60) == 1
    clock[0] += SECOND
    assert throttle.take("a", 3, 60) == 0
    assert throttle.take("a", 3, 60) == 20
    clock[0] += 60 * SECOND
    assert [throttle.take("a", 3, 60) > 0 for _ in range(4)] == [False, False, False, True]


def test_who_is_refused_waits_no_longer_for_asking_again(throttle: Throttle, clock: list[int]) -> None:
    throttle.take("a", 1, 10)
    assert {throttle.take("a", 1, 10) for _ in range(50)} == {10}


def test_names_do_not_share(throttle: Throttle, clock: list[int]) -> None:
    assert [throttle.take(name, 1, 60) for name in ("a", "b", "a\0", "' OR 1=1 --")] == [0, 0, 0, 0]
    assert throttle.take("a", 1, 60) == 60


def test_a_clock_that_was_set_back_locks_nobody_out(throttle: Throttle, clock: list[int]) -> None:
    assert throttle.take("a", 1, 60) == 0
    clock[0] -= 3600 * SECOND
    assert throttle.take("a", 1, 60) == 0
    assert throttle.take("a", 1, 60) == 60


def test_what_is_past_is_forgotten(
    throttle: Throttle, clock: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for number in range(50):
        throttle.take(f"address {number}", 1, 60)
    clock[0] += 61 * SECOND
    monkeypatch.setattr(throttle, "_clean_at", 0.0)
    throttle.take("another", 1, 60)
    assert throttle._connection is not None
    assert throttle._connection.execute("SELECT name FROM allowance").fetchall() == [("another",)]


def test_threads_share_one_allowance(throttle: Throttle) -> None:
    taken: list[bool] = []

    def ask() -> None:
        taken.extend(throttle.take("a", 100, 86400) == 0 for _ in range(50))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), sum(taken)) == (400, 100)


def test_processes_share_one_allowance(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from api.auth.throttling import Throttle;"
        "a = Throttle(Path(sys.argv[1])); print(sum(a.take('a', 100, 86400) == 0 for _ in range(80)))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "rates.sqlite3")]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    counts = [int(process.communicate(timeout=60)[0]) for process in running]
    assert sum(counts) == 100


def test_while_the_file_cannot_be_used_the_process_counts_for_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "api.auth.throttling")
    path = tmp_path / "rates.sqlite3"
    path.write_text("this is no database, and long enough to be seen as none" * 10)
    broken = Throttle(path)
    assert [broken.take("a", 2, 60) > 0 for _ in range(4)] == [False, False, True, True]
    assert [broken.take("b", 1, 60) > 0 for _ in range(2)] == [False, True]
    assert len(caplog.records) == 1
    path.unlink()
    assert [broken.take("a", 1, 60) > 0 for _ in range(2)] == [False, True]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    broken.close()


def test_names_counted_in_memory_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttling, "_MOST_IN_MEMORY", 3)
    broken = Throttle(tmp_path)
    assert [broken.take(name, 1, 60) > 0 for name in "abcde"] == [False, False, False, True, True]
    assert len(broken._whole_at) == 3
    assert [broken.take(name, 1, 1e-9) > 0 for name in "fg"] != []


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ("1.2.3.4:5678", "1.2.3.4"),
        ("9.9.9.9, 1.2.3.4:5", "1.2.3.4"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ('"[2001:db8::1]:443"', "2001:db8::1"),
        ("1.2.3.4:", "unknown"),
        ("1.2.3.4:123456", "unknown"),
        ("[1.2.3.4", "unknown"),
        ("nonsense:80", "unknown"),
    ],
)
def test_proxies_may_write_a_port(settings: Settings, forwarded: str, expected: str) -> None:
    settings.TRUSTED_PROXIES = 1
    assert address(forwarded=forwarded) == expected


def address(peer: str = "10.0.0.9", forwarded: str = "") -> str:
    headers = {"x-forwarded-for": forwarded} if forwarded else {}
    return client_address(RequestFactory().get("/", headers=headers, REMOTE_ADDR=peer))


@pytest.mark.parametrize("forwarded", ["", "1.2.3.4", "1.2.3.4, 5.6.7.8", "::1"])
def test_without_proxies_what_is_said_does_not_count(forwarded: str) -> None:
    assert address(forwarded=forwarded) == "10.0.0.9"


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        (1, "203.0.113.7", "203.0.113.7"),
        (1, "1.1.1.1, 203.0.113.7", "203.0.113.7"),
        (2, "1.1.1.1, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
        (2, "203.0.113.7", "10.0.0.9"),  # fewer entries than proxies: it did not come through them
        (1, "", "10.0.0.9"),
        (1, "2001:db8::1", "2001:db8::1"),
        (1, "1.1.1.1, garbage", "unknown"),
        (1, " , ,203.0.113.7 ,", "203.0.113.7"),
    ],
)
def test_with_proxies_the_entry_that_the_outermost_of_them_wrote_counts(
    settings: Settings, proxies: int, forwarded: str, expected: str
) -> None:
    settings.TRUSTED_PROXIES = proxies
    assert address(forwarded=forwarded) == expected


def test_a_peer_without_an_address_is_unknown() -> None:
    assert address(peer="") == "unknown"


@pytest.mark.parametrize(
    ("one", "whole"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("unknown", "unknown"),
    ],
)
def test_of_ipv6_a_whole_network_counts_as_one(one: str, whole: str) -> None:
    assert network_of(one) == whole
