"""A record batch: the messages that one group commit makes durable, with one write and one fsync."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import msgspec

from broker.log.dedup import ProducerStates, StagedProducer
from broker.log.record import MAX_SEQUENCE, NO_PRODUCER, OVERHEAD, append_records

# The largest block, unless a single frame is larger. A stopped subscriber holds at most one block in memory.
BLOCK_BYTES = 256 << 10

_NOBODY = NO_PRODUCER.encode()


class Entries(msgspec.Struct, gc=False):
    """Consecutive messages of one producer, each a JSON text, with consecutive sequences from ``sequence`` on. Without a
    producer ("") they have no sequences, and duplicates are not detected.

    They stay together because a small message costs mostly Python's own time for each object and call.
    """

    payloads: list[bytes]
    producer: str = ""
    sequence: int = 0
    size: int = 0  # of all payloads

    def __post_init__(self) -> None:
        self.size = sum(map(len, self.payloads))


class Appended(NamedTuple):
    """Where consecutive messages lie: from ``offset`` on. A duplicate has its first offset, or -1 if that is forgotten."""

    offset: int
    messages: int
    duplicate: bool


class FrameBlock(NamedTuple):
    """Consecutive whole frames that are written, cached and delivered in one piece.

    ``positions`` holds where each frame begins in ``data``.
    """

    first_offset: int
    next_offset: int
    data: bytes
    positions: list[int]


class RecordBatch:
    """A batch's frames, ready to be written, in blocks of at most BLOCK_BYTES; ``size`` is the bytes of all of them.

    ``places`` holds where the messages of each Entries lie, in order, once the batch is durable; ``duplicates`` counts
    those that were in the log before.
    """

    def __init__(self, first_offset: int, timestamp_ms: int) -> None:
        self.first_offset = first_offset
        self.next_offset = first_offset
        self.timestamp_ms = timestamp_ms
        self.blocks: list[FrameBlock] = []
        self.size = 0
        self.places: list[list[Appended]] = []
        self.duplicates = 0
        self.producer_gaps = 0
        # Offset of a duplicate -> checksum of the payload that the log has there. ``Log.commit`` reads them.
        self.checksums: dict[int, str] = {}
        self.producers: dict[str, StagedProducer] = {}
        # The block being built.
        self._parts: list[bytes] = []
        self._positions: list[int] = []
        self._position = 0

    def append(self, producer: bytes, sequence: int, payloads: Sequence[bytes]) -> Appended:
        """Encodes consecutive messages. Raises ValueError for a payload that fits no record."""
        place = Appended(self.next_offset, len(payloads), False)
        done = 0
        while done < len(payloads):
            sizes = [len(payload) + OVERHEAD for payload in payloads[done:]]
            starts = list(accumulate(sizes, initial=self._position))
            # As many as end within the block; an empty block takes one of any size.
            count = bisect_right(starts, BLOCK_BYTES, lo=1) - 1 or int(not self._positions)
            some = payloads[done : done + count]
            append_records(self._parts, self.timestamp_ms, producer, self.next_offset, sequence + done, some)
            self._positions += starts[:count]
            self._position = starts[count]
            self.next_offset += count
            done += count
            if done < len(payloads):
                self.end_block()
        return place

    def frame(self, offset: int) -> bytes:
        """Returns the frame of one of its own messages."""
        block = self.blocks[bisect_right(self.blocks, offset, key=lambda block: block.first_offset) - 1]
        start, *rest = block.positions[offset - block.first_offset :][:2]
        return block.data[start : rest[0] if rest else None]

    def end_block(self) -> None:
        """Ends the current block; the next message begins a new one."""
        if self._positions:
            first_offset = self.next_offset - len(self._positions)
            self.blocks.append(FrameBlock(first_offset, self.next_offset, b"".join(self._parts), self._positions))
            self.size += self._position
        self._parts, self._positions, self._position = [], [], 0


def build_batch(
    published: Sequence[Entries], first_offset: int, timestamp_ms: int, known: ProducerStates
) -> RecordBatch:
    """Skips duplicates, also within the batch, numbers the other messages and encodes their frames.

    Raises ValueError for a message that fits no record: an empty or too large payload, a bad producer or sequence.
    """
    batch = RecordBatch(first_offset, timestamp_ms)
    for entries in published:
        if entries.producer:
            places = _append_new(batch, entries, known)
        else:
            places = [batch.append(_NOBODY, batch.next_offset, entries.payloads)]
        batch.places.append(places)
    batch.end_block()
    return batch


def _append_new(batch: RecordBatch, entries: Entries, known: ProducerStates) -> list[Appended]:
    """Appends the messages that are new; returns where each lies."""
    producer, sequence, payloads = entries.producer, entries.sequence, entries.payloads
    if not 0 <= sequence <= MAX_SEQUENCE + 1 - len(payloads):
        raise ValueError(f"sequence {sequence} and those after it are not within 0 and {MAX_SEQUENCE}")
    state = batch.producers.get(producer)
    if state is None:
        state = batch.producers[producer] = known.stage(producer)
    places: list[Appended] = []
    done = 0
    while done < len(payloads):
        # One by one up to the highest known sequence, the rest together.
        first = sequence + done
        count = 1 if first <= state.last else len(payloads) - done
        before = state.find(first)
        if before is not None:
            places.append(Appended(before, 1, True))
            batch.duplicates += 1
        else:
            if state.last >= 0 and first > state.last + 1:
                batch.producer_gaps += 1
            place = batch.append(producer.encode(), first, payloads[done : done + count])
            state.add(first, place.offset, count)
            places.append(place)
        done += count
    return places
