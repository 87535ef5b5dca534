"""Rows 5, 6, 7 and 23 of the fault matrix: the disk is full, slow, broken or not ours to write."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from broker.client.client import BrokerClient
from broker.errors import DiskFull
from tests.broker.faults.tools import need, need_namespaces
from tests.broker.faults.workload import Workload
from tests.broker.process import BrokerProcess, broker_process


def health(http_port: int) -> tuple[int, str]:
    """Status and reasons."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/health", timeout=10) as answer:
            return int(answer.status), str(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, str(json.loads(error.read())["reasons"])


def in_tmpfs(state: Path, options: str, then: str = "") -> list[str]:
    """A command prefix that gives the state folder a file system of its own."""
    script = f'mount -t tmpfs -o mode=700,{options} none "{state}" {then} && exec "$@"'
    return [*need_namespaces("--mount"), "sh", "-c", script, "sh"]


async def test_row_05_a_disk_that_fills_and_is_freed_again(tmp_path: Path) -> None:
    ballast = f'&& head -c 3000000 /dev/zero > "{tmp_path}/ballast"'
    prefix = in_tmpfs(tmp_path, "size=6m", ballast)
    with broker_process(tmp_path, "--free-space-reserve", "0", prefix=prefix) as broker:
        port, http_port = await asyncio.to_thread(broker.wait_listening)
        workload = Workload(publishers=2, window=16)
        await workload.run(port, asyncio.Event(), most=600)
        assert set(workload.refusals) == {"disk_full"}
        answered = sum(len(one.answered) for one in workload.publishers)
        assert answered > 100
        # The last of them may have been small ones that found room: of this the probe finds none either.
        client = await BrokerClient.connect("127.0.0.1", port)
        with pytest.raises(DiskFull):
            await client.publish(b'"%b"' % (b"x" * 1_000_000))
        status, reasons = await asyncio.to_thread(health, http_port)
        assert status == 503
        assert "No space left" in reasons
        # Readers go on.
        verdict = await workload.check(port)
        verdict.out_of_order = 0  # a small message may find room where a large one did not
        assert (verdict.answered, verdict.records, verdict.clean) == (answered, answered, True)
        (Path(f"/proc/{broker.pids()[0]}/root") / str(tmp_path).lstrip("/") / "ballast").unlink()
        # Nobody publishes, and it recovers by itself.
        deadline = time.monotonic() + 30
        while (await asyncio.to_thread(health, http_port))[0] != 200:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert (await client.publish(b"1")).offset == answered
        await client.close()


async def test_row_06_a_failed_fsync_ends_the_broker_with_74_and_a_restart_recovers(tmp_path: Path) -> None:
    strace = [need("strace"), "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync"]
    prefix = [*strace, "-e", "inject=fdatasync:error=EIO:when=12+"]
    workload = Workload(publishers=2, window=8)
    with broker_process(tmp_path, prefix=prefix) as broker:
        port, _ = await asyncio.to_thread(broker.wait_listening)
        await workload.run(port, asyncio.Event())
        assert await asyncio.to_thread(broker.wait_end) == 74
        assert "fsync of" in broker.lines[-1]
        assert "start again to recover" in broker.lines[-1]
    with broker_process(tmp_path) as broker:
        port, _ = await asyncio.to_thread(broker.wait_listening)
        await workload.finish(port)
        verdict = await workload.check(port)
        assert verdict.clean, verdict
        assert verdict.answered == sum(one.next for one in workload.publishers)


async def test_row_06_a_slow_disk_holds_up_nobody_but_publishers(tmp_path: Path) -> None:
    strace = [need("strace"), "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync"]
    prefix = [*strace, "-e", "inject=fdatasync:delay_enter=4000000:when=8"]
    with broker_process(tmp_path, prefix=prefix) as broker:
        port, http_port = await asyncio.to_thread(broker.wait_listening)
        publisher = await BrokerClient.connect("127.0.0.1", port)
        reader = await BrokerClient.connect("127.0.0.1", port)
        slowest, waits = 0.0, []
        statuses = set()
        for number in range(20):
            sent = publisher.publish(b"%d" % number)
            started = time.monotonic()
            while not sent.done():
                asked = time.monotonic()
                await reader.stats()
                waits.append(time.monotonic() - asked)
                if time.monotonic() - started > 0.5:
                    statuses.add(await asyncio.to_thread(health, http_port))
                await asyncio.sleep(0.01)
            assert sent.result().offset == number
            slowest = max(slowest, time.monotonic() - started)
        assert slowest > 3.5
        assert sorted(waits)[len(waits) * 95 // 100] < 0.1
        assert any(status == 503 and "has not answered" in reasons for status, reasons in statuses)
        await publisher.close()
        await reader.close()


async def test_row_07_a_write_that_is_cut_short_leaves_no_hole(tmp_path: Path) -> None:
    # A limit on the size of files gives a genuine short write, then EFBIG. In blocks of 512 bytes.
    prefix = ["sh", "-c", 'ulimit -f 2001 && exec "$@"', "sh"]
    workload = Workload(publishers=2, window=16)
    with broker_process(tmp_path, prefix=prefix) as broker:
        port, _ = await asyncio.to_thread(broker.wait_listening)
        await workload.run(port, asyncio.Event(), most=400)
        assert set(workload.refusals) == {"disk_full"}
        verdict = await workload.check(port)
        verdict.out_of_order = 0
        assert verdict.clean, verdict
        assert verdict.answered == verdict.records > 50
        client = await BrokerClient.connect("127.0.0.1", port)
        with pytest.raises(DiskFull):
            await client.publish(b'"%b"' % (b"x" * 1_100_000))
        await client.close()
        broker.process.kill()
    with broker_process(tmp_path) as broker:
        port, _ = await asyncio.to_thread(broker.wait_listening)
        await workload.finish(port)
        verdict = await workload.check(port)
        # A refused large message comes after a small one that still found room.
        verdict.out_of_order = 0
        assert verdict.clean, verdict
        assert verdict.records == verdict.answered == 800


def start_fails(broker: BrokerProcess) -> str:
    """The one line that a broker which cannot start leaves."""
    assert broker.wait_end() == 1
    assert not any("Traceback" in line for line in broker.lines)
    return broker.lines[-1]


def test_row_23_a_read_only_folder(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text("x" * 50)
    script = f'mount --bind "{tmp_path}" "{tmp_path}" && mount -o remount,bind,ro "{tmp_path}" && exec "$@"'
    prefix = [*need_namespaces("--mount"), "sh", "-c", script, "sh"]
    with broker_process(tmp_path, prefix=prefix) as broker:
        line = start_fails(broker)
        assert "cannot hold the log: Read-only file system" in line


def test_row_23_no_more_files(tmp_path: Path) -> None:
    with broker_process(tmp_path, prefix=in_tmpfs(tmp_path, "nr_inodes=4")) as broker:
        assert "No space left on device" in start_fails(broker)


def test_row_23_a_missing_folder_is_made_and_one_in_a_file_s_place_is_not(tmp_path: Path) -> None:
    with broker_process(tmp_path / "a" / "b") as broker:
        broker.wait_listening()
    state = tmp_path / "state"
    state.mkdir()
    (state / "secret_key").write_text("x" * 50)
    (state / "broker").write_text("")
    with broker_process(state) as broker:
        assert str(state / "broker") in start_fails(broker)
