from __future__ import annotations

import json
from typing import NamedTuple

import pytest

from broker.log.record import HEAD, encode_record
from broker.log.scan import Stretch, frame_starts, good_records, next_stretch


class Bytes(NamedTuple):
    """A source in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, position: int, size: int) -> bytes:
        return self.data[position : position + size]


def frames(*offsets: int, payload: bytes = b"{}") -> bytes:
    return b"".join(encode_record(offset, 1, "", 0, payload) for offset in offsets)


ONE = len(frames(0))


def stretches(data: bytes, expected: int = 0, stop: int = 1 << 60, most: int = 1 << 20) -> list[tuple[int, int, int]]:
    found = []
    position = 0
    while stretch := next_stretch(Bytes(data), position, expected, stop, most):
        found.append((stretch.position, stretch.offset, stretch.next_offset))
        assert data[stretch.position : stretch.end] == stretch.data
        position, expected = stretch.end, stretch.next_offset
    return found


def test_good_records_are_walked_until_they_stop_being_so() -> None:
    data = frames(5, 6, 7)
    assert good_records(data, 5, 100) == (3 * ONE, 8)
    assert good_records(data, 5, 7) == (2 * ONE, 7)
    assert good_records(data, 6, 100) == (0, 6)
    assert good_records(data[:-1], 5, 100) == (2 * ONE, 7)
    assert good_records(frames(5, 7), 5, 100) == (ONE, 6)
    assert good_records(b"", 0, 1) == good_records(bytes(1000), 0, 1) == (0, 0)


def test_records_start_where_their_lengths_say() -> None:
    assert frame_starts(frames(1, 2, 3)) == [0, ONE, 2 * ONE]
    assert frame_starts(frames(1, 2, 3), ONE) == [ONE, 2 * ONE]
    assert frame_starts(b"") == []


def test_a_stretch_has_what_fits_or_one_record() -> None:
    data = frames(0, 1, 2, 3)
    assert stretches(data) == [(0, 0, 4)]
    assert stretches(data, most=2 * ONE + 5) == [(0, 0, 2), (2 * ONE, 2, 4)]
    assert stretches(data, most=1) == [(n * ONE, n, n + 1) for n in range(4)]
    assert stretches(data, stop=3) == [(0, 0, 3)]
    assert stretches(data, stop=0) == []


def test_good_records_behind_rubbish_are_found() -> None:
    for rubbish in (b"x", bytes(3000), HEAD * 50, b"\0" + HEAD, frames(0)[:-1], b"\x08\xff\xff\xff" + HEAD):
        data = frames(0) + rubbish + frames(1, 4)
        found = stretches(data)
        assert found[0] == (0, 0, 1)
        assert found[-1] == (len(data) - ONE, 4, 5)
        assert found[1][1:] == (1, 2)


def test_records_behind_much_rubbish_are_found_across_the_windows() -> None:
    for size in (2**20 - 30, 2**20 - 28, 2**20 - 4, 2**20, 2**20 + 1, 2**21 - 40):
        assert stretches(bytes(size) + frames(0)) == [(size, 0, 1)]


def test_a_record_that_was_there_before_or_belongs_to_later_is_passed_over() -> None:
    assert stretches(frames(0, 1, 0, 2)) == [(0, 0, 2), (3 * ONE, 2, 3)]
    assert stretches(frames(0, 9, 1), stop=5) == [(0, 0, 1), (2 * ONE, 1, 2)]


def test_a_record_inside_a_payload_is_never_taken_for_one() -> None:
    inner = json.dumps(frames(1).decode("latin-1")).encode()
    data = frames(0, payload=inner) + frames(1, payload=inner) + frames(2)
    second = len(frames(0, payload=inner))
    for position in range(second, 2 * second, 7):
        damaged = bytearray(data)
        damaged[position] ^= 4
        assert [found[1:] for found in stretches(bytes(damaged))] == [(0, 1), (2, 3)]


@pytest.mark.parametrize("size", [0, 3, 29, ONE - 1])
def test_nothing_good_is_nothing(size: int) -> None:
    assert stretches(frames(0)[:size]) == []


def test_a_stretch_knows_its_end() -> None:
    assert Stretch(10, 0, 1, b"12345").end == 15
