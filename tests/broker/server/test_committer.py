from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from broker.errors import BrokerError
from broker.log.batch import Entries, RecordBatch
from broker.log.log import Log, LogConfig
from broker.server import committer as committer_module
from broker.server.committer import GROUP_COMMIT_S, Committer
from broker.server.worker import Done, Worker
from tests.broker.logs import Answer, answers_of


class Note(Entries):
    owner: str = ""


class Desk:
    """A committer on a real log that writes down what it is told."""

    def __init__(self, directory: Path, worker: Worker | None = None) -> None:
        self.log = Log.open(directory, LogConfig())
        self.worker = worker or Worker("test-writer")
        self.groups: list[list[str]] = []
        self.answers: list[Answer] = []
        self.refused: list[tuple[str, str]] = []
        self.failures: list[BaseException] = []
        self.committer = Committer[Note](
            self.log, self.worker, on_written=self.written, on_refused=self.refuse, on_failed=self.failures.append
        )

    def written(self, group: RecordBatch, batch: Sequence[Note]) -> None:
        self.groups.append([note.owner for note in batch])
        self.answers += answers_of(group)

    def refuse(self, batch: Sequence[Note], error: BrokerError) -> None:
        self.refused += [(note.owner, error.code) for note in batch]

    def add(self, *owners: str) -> None:
        for owner in owners:
            self.committer.add(Note([b'"%b"' % owner.encode()], owner=owner))

    async def close(self) -> None:
        await self.worker.close(5.0)
        self.log.close()


async def test_what_comes_in_one_turn_is_one_group(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.add("a", "b", "c")
    assert desk.committer.bytes == 9
    await desk.committer.wait_idle()
    assert desk.groups == [["a", "b", "c"]]
    assert [answer.offset for answer in desk.answers] == [0, 1, 2]
    assert desk.committer.bytes == 0
    assert desk.committer.waits_for() == 0.0
    await desk.close()


async def test_what_comes_while_one_is_written_is_the_next_group(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    gate = threading.Event()
    desk.worker.submit(gate.wait, lambda result, error: None)
    desk.add("a")
    await asyncio.sleep(0)
    for owner in "bcd":
        desk.add(owner)
        await asyncio.sleep(0)
    assert desk.committer.waits_for() > 0
    gate.set()
    await desk.committer.wait_idle()
    assert desk.groups == [["a"], ["b", "c", "d"]]
    await desk.close()


class HeldWorker(Worker):
    """Does its jobs, but does not tell before it is asked to."""

    def __init__(self) -> None:
        super().__init__("test-writer")
        self.untold: list[Callable[[], None]] = []

    def submit(self, job: Callable[[], Any], done: Done) -> None:
        result = job()
        self.untold.append(lambda: done(result, None))


@pytest.mark.parametrize(("most", "groups"), [(1 << 20, [["a"], ["b", "c"]]), (3, [["a"], ["b"], ["c"]])])
async def test_what_is_read_when_a_group_ends_goes_with_the_next_unless_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, groups: list[list[str]]
) -> None:
    monkeypatch.setattr(committer_module, "GROUP_BYTES", most)
    worker = HeldWorker()
    desk = Desk(tmp_path, worker)
    loop = asyncio.get_running_loop()
    desk.add("a")
    await asyncio.sleep(0)
    desk.add("b")
    # In one turn: the end of the group, then the bytes that a socket has.
    loop.call_soon(worker.untold.pop())
    loop.call_soon(desk.add, "c")
    while len(desk.groups) < len(groups):
        await asyncio.sleep(0)
        if worker.untold:
            worker.untold.pop()()
    assert desk.groups == groups
    await desk.close()


async def test_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "GROUP_MESSAGES", 3)
    monkeypatch.setattr(committer_module, "GROUP_BYTES", 10)
    desk = Desk(tmp_path)
    desk.add("a", "b", "c", "d", "eeeeeeeeeeeeeee", "f")
    await desk.committer.wait_idle()
    assert desk.groups == [["a", "b", "c"], ["d", "eeeeeeeeeeeeeee"], ["f"]]
    await desk.close()


@pytest.mark.parametrize(
    ("latencies", "sizes"),
    [
        # What size explains is no latency, and one long commit is none of the disk's.
        ([0.0] * 12, [1] * 12),
        ([1000.0] * 7 + [0.0] + [1000.0] * 4, [1] * 12),
        # From the eighth on it is every commit, until one is short.
        ([GROUP_COMMIT_S] * 9 + [1000.0, 0.0, 1000.0], [1] * 8 + [2] * 3 + [1]),
        ([1000.0] * 12, [1] * 8 + [3] * 4),
    ],
)
async def test_groups_grow_where_every_commit_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, latencies: list[float], sizes: list[int]
) -> None:
    monkeypatch.setattr(committer_module, "GROUP_BYTES", 2)
    now = 0.0
    monkeypatch.setattr(committer_module, "time", SimpleNamespace(monotonic=lambda: now))
    worker = HeldWorker()
    desk = Desk(tmp_path, worker)
    commit, waits = desk.log.commit, iter(latencies)

    def slow(group: RecordBatch) -> None:
        nonlocal now
        commit(group)
        now += next(waits, 0.0) + (group.next_offset - group.first_offset) * 1.5 * GROUP_COMMIT_S

    monkeypatch.setattr(desk.log, "commit", slow)
    desk.add(*"abcdefghijklmnopqrstuvwxyz0123456789")
    await asyncio.sleep(0)
    for _ in latencies:
        worker.untold.pop()()
        now += 1000.0  # what else keeps the loop is none of the disk's
    assert [len(group) for group in desk.groups] == sizes
    await desk.close()


async def test_a_full_disk_refuses_the_whole_group_and_the_next_one_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path)

    def full(fd: int, pieces: Sequence[bytes], position: int) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(desk.log._disk, "write", full)
        desk.add("a", "b")
        await desk.committer.wait_idle()
    assert desk.refused == [("a", "disk_full"), ("b", "disk_full")]
    desk.add("c")
    await desk.committer.wait_idle()
    assert desk.groups == [["c"]]
    assert desk.answers == [Answer(0, False)]
    assert desk.committer.refusal is None
    await desk.close()


async def test_after_a_failed_fsync_nothing_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path)

    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(desk.log._disk, "sync", broken)
    desk.add("a")
    await asyncio.sleep(0)
    desk.add("b")
    await desk.committer.wait_idle()
    desk.add("c")
    await asyncio.sleep(0)
    assert (desk.groups, desk.refused) == ([], [])
    assert len(desk.failures) == 1
    monkeypatch.undo()
    await desk.close()
