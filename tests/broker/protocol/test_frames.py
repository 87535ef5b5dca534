from __future__ import annotations

import random
import struct
import tracemalloc

import pytest

from broker.protocol.frames import FrameReader, frame

TWO_FRAMES = b'\x00\x00\x00\x0f{"type":"ping"}\x00\x00\x00\x14{"type":"get_stats"}'
TWO_BODIES = [b'{"type":"ping"}', b'{"type":"get_stats"}']


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def read_all(chunks: list[bytes], max_frame: int = 1024, *, keep_prefix: bool = False) -> list[bytes]:
    reader = FrameReader(max_frame, keep_prefix=keep_prefix)
    return [body for chunk in chunks for body in reader.feed(chunk)]


def test_it_reads_frames_that_come_whole() -> None:
    assert read_all([TWO_FRAMES]) == TWO_BODIES


@pytest.mark.parametrize("size", range(1, len(TWO_FRAMES)))
def test_it_reads_frames_in_pieces_of_every_size(size: int) -> None:
    assert read_all(pieces(TWO_FRAMES, size)) == TWO_BODIES


def test_it_reads_frames_cut_in_two_at_every_byte() -> None:
    for cut in range(len(TWO_FRAMES) + 1):
        assert read_all([TWO_FRAMES[:cut], TWO_FRAMES[cut:]]) == TWO_BODIES


def test_the_prefix_is_kept_on_request() -> None:
    assert b"".join(read_all(pieces(TWO_FRAMES, 7), keep_prefix=True)) == TWO_FRAMES


def test_large_and_small_pieces_mix() -> None:
    rng = random.Random(7)
    bodies = [bytes([65 + n % 26]) * rng.choice([1, 3, 5000, 70_000, 200_000]) for n in range(60)]
    stream = b"".join(map(frame, bodies))
    chunks = []
    while stream:
        size = rng.choice([1, 2, 100, 4095, 4096, 65_536])
        chunks.append(stream[:size])
        stream = stream[size:]
    assert read_all(chunks, 200_000) == bodies


def test_held_tells_the_bytes_of_the_unfinished_frame() -> None:
    reader = FrameReader(1024)
    assert reader.feed(TWO_FRAMES[:25]) == TWO_BODIES[:1]
    assert reader.held == 6
    reader.feed(TWO_FRAMES[25:])
    assert reader.held == 0


def test_a_frame_of_the_largest_size_is_taken() -> None:
    assert read_all([frame(b"x" * 64)], 64) == [b"x" * 64]


@pytest.mark.parametrize(
    ("length", "code"), [(0, "bad_frame"), (65, "too_large"), (2**31, "too_large"), (2**32 - 1, "too_large")]
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_bad_length_is_a_fault_and_nothing_after_it_is_read(length: int, code: str, size: int) -> None:
    reader = FrameReader(64)
    stream = frame(b"good") + struct.pack(">I", length) + frame(b"never read")
    assert [body for chunk in pieces(stream, size) for body in reader.feed(chunk)] == [b"good"]
    assert reader.fault is not None
    assert reader.fault.code == code
    assert reader.feed(frame(b"never read")) == []


def test_memory_follows_what_came_not_what_was_announced() -> None:
    tracemalloc.start()
    try:
        readers = [FrameReader(8 << 20) for _ in range(200)]
        for reader in readers:
            reader.feed(struct.pack(">I", 8 << 20) + b"{")
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()


def test_tiny_pieces_cost_no_object_each() -> None:
    tracemalloc.start()
    try:
        reader = FrameReader(1 << 20)
        reader.feed(struct.pack(">I", 1 << 20))
        for _ in range(1 << 18):
            reader.feed(b"ab")
        assert reader.held == (1 << 19) + 4
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("most", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [1, 5, 30, 1000])
def test_it_finds_some_frames_at_a_time_and_the_others_later(most: int, size: int) -> None:
    bodies = [b"%d" % number * (number % 9 + 1) for number in range(40)]
    chunks = pieces(b"".join(map(frame, bodies)) + frame(b"unfinished")[:9], size)
    reader = FrameReader(64)
    found: list[bytes] = []
    for number, chunk in enumerate(chunks):
        frames = reader.find(chunk, most)
        assert len(frames) <= most
        # Now and then more comes while some are left.
        while number % 3 and reader.unread:
            assert reader.held == 0
            frames += (more := reader.find(most=most))
            assert len(more) <= most
        found += (held[start:stop] for held, start, stop in frames)
    while reader.unread:
        found += (held[start:stop] for held, start, stop in reader.find(most=most))
    assert found == bodies
    assert reader.held == 9


def test_a_bad_length_counts_when_it_is_come_to() -> None:
    reader = FrameReader(64)
    seen = []
    for data in (frame(b"a") * 3 + struct.pack(">I", 65), b""):
        count = len(reader.find(data, 2))
        seen.append((count, reader.fault.code if reader.fault else ""))
    assert seen == [(2, ""), (1, "too_large")]
    assert reader.unread == 0


# requests
