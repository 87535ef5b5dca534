"""A group: the messages that are made durable together, with one write and one fsync."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import msgspec

from broker.log.dedup import Producers, StagedProducer
from broker.log.record import MAX_SEQUENCE, NO_PRODUCER, OVERHEAD, append_records

# Most of a piece, unless a single frame is larger. What a stopped subscriber costs is the part of one that its socket did
# not take.
PIECE_BYTES = 256 << 10

_NOBODY = NO_PRODUCER.encode()


class Entries(msgspec.Struct, gc=False):
    """Messages in a row of one producer, each a JSON text, with sequences in a row from ``sequence`` on. Without a producer
    ("") repetitions are not noticed, and they have no sequences.

    Together, not one by one: what a small message costs is mostly Python's own time for each object and call.
    """

    payloads: list[bytes]
    producer: str = ""
    sequence: int = 0
    size: int = 0  # of all payloads

    def __post_init__(self) -> None:
        self.size = sum(map(len, self.payloads))


class Place(NamedTuple):
    """Where messages in a row lie: at offsets in a row, or one that was there before at its first offset, or at -1 where
    that is long forgotten."""

    offset: int
    messages: int
    duplicate: bool


class Piece(NamedTuple):
    """Some whole frames that lie one after the other: what is written, kept and delivered in one go.

    ``positions`` has where each begins in ``data``.
    """

    first_offset: int
    next_offset: int
    data: bytes
    positions: list[int]


class Group:
    """The frames of a group, ready to be written, in pieces of at most PIECE_BYTES; ``size`` is all their bytes.

    ``places`` has where the messages of each Entries lie, in order, once the group is durable; ``duplicates`` is how many
    were there before.
    """

    def __init__(self, first_offset: int, timestamp_ms: int) -> None:
        self.first_offset = first_offset
        self.next_offset = first_offset
        self.timestamp_ms = timestamp_ms
        self.pieces: list[Piece] = []
        self.size = 0
        self.places: list[list[Place]] = []
        self.duplicates = 0
        self.producer_gaps = 0
        self.producers: dict[str, StagedProducer] = {}
        # The piece that is being made.
        self._parts: list[bytes] = []
        self._positions: list[int] = []
        self._position = 0

    def append(self, producer: bytes, sequence: int, payloads: Sequence[bytes]) -> Place:
        """Lay out messages in a row. Raises ValueError for a payload that fits no record."""
        place = Place(self.next_offset, len(payloads), False)
        done = 0
        while done < len(payloads):
            sizes = [len(payload) + OVERHEAD for payload in payloads[done:]]
            starts = list(accumulate(sizes, initial=self._position))
            # As many as end within the piece; an empty one takes one of any size.
            count = bisect_right(starts, PIECE_BYTES, lo=1) - 1 or int(not self._positions)
            some = payloads[done : done + count]
            append_records(self._parts, self.timestamp_ms, producer, self.next_offset, sequence + done, some)
            self._positions += starts[:count]
            self._position = starts[count]
            self.next_offset += count
            done += count
            if done < len(payloads):
                self.end_piece()
        return place

    def end_piece(self) -> None:
        """What is laid out next begins a new piece."""
        if self._positions:
            first_offset = self.next_offset - len(self._positions)
            self.pieces.append(Piece(first_offset, self.next_offset, b"".join(self._parts), self._positions))
            self.size += self._position
        self._parts, self._positions, self._position = [], [], 0


def build_group(batch: Sequence[Entries], first_offset: int, timestamp_ms: int, known: Producers) -> Group:
    """Sorts out repetitions, also inside the group, numbers the rest and lays out its frames.

    Raises ValueError for an entry that fits no record: an empty or too large payload, a bad producer or sequence.
    """
    group = Group(first_offset, timestamp_ms)
    for entries in batch:
        if entries.producer:
            places = _append_new(group, entries, known)
        else:
            places = [group.append(_NOBODY, group.next_offset, entries.payloads)]
        group.places.append(places)
    group.end_piece()
    return group


def _append_new(group: Group, entries: Entries, known: Producers) -> list[Place]:
    """Appends what is not there yet; where each message lies."""
    producer, sequence, payloads = entries.producer, entries.sequence, entries.payloads
    if not 0 <= sequence <= MAX_SEQUENCE + 1 - len(payloads):
        raise ValueError(f"sequence {sequence} and those after it are not within 0 and {MAX_SEQUENCE}")
    state = group.producers.get(producer)
    if state is None:
        state = group.producers[producer] = known.stage(producer)
    places: list[Place] = []
    done = 0
    while done < len(payloads):
        # One by one up to the highest so far, the rest together.
        first = sequence + done
        count = 1 if first <= state.last else len(payloads) - done
        before = state.find(first)
        if before is not None:
            places.append(Place(before, 1, True))
            group.duplicates += 1
        else:
            if state.last >= 0 and first > state.last + 1:
                group.producer_gaps += 1
            place = group.append(producer.encode(), first, payloads[done : done + count])
            state.add(first, place.offset, count)
            places.append(place)
        done += count
    return places
