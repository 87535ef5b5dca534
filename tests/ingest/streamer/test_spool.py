from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.errors import DiskFull
from broker.log.disk import Disk
from ingest.errors import StateError
from ingest.streamer.spool import Spool

MIB = 1 << 20


def payloads(first: int, count: int, size: int = 20) -> list[tuple[bytes, int]]:
    return [(b'{"n":%d,"x":"%s"}' % (first + each, b"x" * size), 10) for each in range(count)]


def numbers(spool: Spool, start: int = 0) -> list[int]:
    found = []
    batches, start = spool.read(start)
    while batches:
        found += [batch.number for batch in batches]
        batches, start = spool.read(start)
    return found


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool", 64 * MIB)
    yield spool
    spool.close()


def test_batches_come_out_in_order_until_they_are_answered(spool: Spool) -> None:
    spool.append(payloads(0, 5))
    spool.append([])
    batches, after = spool.read(0)
    assert [batch.payload for batch in batches] == [payload for payload, _ in payloads(0, 5)]
    assert (after, spool.waiting) == (5, 5)
    assert spool.answered(2) == 30
    assert numbers(spool) == [3, 4]
    assert spool.answered(4) == 20
    assert (spool.waiting, spool.oldest_since, spool.read(5)) == (0, None, ([], 5))


def test_what_a_run_made_keeps_its_id_and_what_the_next_one_makes_has_another(tmp_path: Path) -> None:
    first = Spool(tmp_path, 64 * MIB)
    first.append(payloads(0, 5))
    first.answered(1)
    first.close()
    second = Spool(tmp_path, 64 * MIB)
    assert numbers(second) == [2, 3, 4]
    second.append(payloads(5, 1))
    assert (second.next_unanswered, second.waiting) == (2, 4)
    assert [batch.producer for batch in second.read(0)[0]] == [first.producer] * 3 + [second.producer]
    assert first.producer != second.producer
    second.close()


def test_past_its_bound_it_gives_up_the_oldest_and_counts_them(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB)
    given_up = [0, 0]
    for first in range(0, 60, 5):
        coming = payloads(first, 5, size=50_000)
        batches, readings = spool.give_up(coming)
        spool.tick()
        spool.append(coming)
        assert MIB // 2 < spool.size_bytes <= MIB or first < 10
        given_up = [given_up[0] + batches, given_up[1] + readings]
    assert 0 < given_up[0] < 60
    assert given_up[1] == 10 * given_up[0]
    assert numbers(spool) == list(range(given_up[0], 60))
    assert spool.give_up(at_least=2) == (2, 20)
    spool.close()


def test_answered_batches_leave_the_disk(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB)
    for first in range(0, 40, 10):
        spool.append(payloads(first, 10, size=50_000))
    before = spool.size_bytes
    spool.answered(39)
    spool.tick()
    assert spool.size_bytes < before / 3
    spool.close()


def test_a_full_disk_keeps_none_of_an_append(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.append(payloads(0, 1))

    def full(self: Disk, *args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Disk, "write", full)
        with pytest.raises(DiskFull):
            spool.append(payloads(1, 2))
    assert spool.waiting == 1
    spool.append(payloads(1, 2))
    assert numbers(spool) == [0, 1, 2]


def test_two_streamers_cannot_have_one_spool(spool: Spool, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="another streamer has this spool"):
        Spool(tmp_path / "spool", MIB)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"STATE_DIR .*cannot keep the spool"):
        Spool(tmp_path / "file" / "spool", MIB)


def test_a_damaged_batch_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path, 64 * MIB)
    spool.append(payloads(0, 3))
    spool.close()
    segment = next(tmp_path.glob("*.log"))
    data = bytearray(segment.read_bytes())
    middle = data.index(b'{"n":1')
    data[middle + 8] ^= 1
    segment.write_bytes(data)
    again = Spool(tmp_path, 64 * MIB)
    assert numbers(again) == [0, 2]
    assert "batches 1 to 1 of the spool cannot be read" in caplog.text
    again.close()
