"""A group: the messages that are made durable together, with one write and one fsync."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from broker.producers import Producers, StagedProducer
from broker.record import MAX_PAYLOAD, MAX_SEQUENCE, NO_PRODUCER, OVERHEAD, fields_template, record_parts

# Most of a piece, unless a single frame is larger. What a stopped subscriber costs is the part of one that its socket did
# not take.
PIECE_BYTES = 256 << 10

_NOBODY = NO_PRODUCER.encode()
_NO_STATE = StagedProducer(None)
# Follows no sequence.
_NOTHING = MAX_SEQUENCE + 1


class Entry(msgspec.Struct, gc=False):
    """One message to append: a JSON text. Without a producer ("") repetitions are not noticed."""

    payload: bytes
    producer: str = ""
    sequence: int = 0


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

    ``offsets`` has where each entry lies, in order, and ``duplicates`` the numbers of those that were there before: they lie
    at their first offset, or -1 when that is long forgotten. Both hold once the group is durable.
    """

    def __init__(self, first_offset: int, timestamp_ms: int) -> None:
        self.first_offset = first_offset
        self.next_offset = first_offset
        self.timestamp_ms = timestamp_ms
        self.pieces: list[Piece] = []
        self.size = 0
        self.offsets: list[int] = []
        self.duplicates: set[int] = set()
        self.producer_gaps = 0
        self.producers: dict[str, StagedProducer] = {}

    def add_piece(self, parts: list[bytes], positions: list[int], next_offset: int) -> None:
        """Take in the next frames, given in parts to be joined. None is no piece."""
        if positions:
            piece = Piece(self.next_offset, next_offset, b"".join(parts), positions)
            self.pieces.append(piece)
            self.size += len(piece.data)
            self.next_offset = next_offset


def build_group(entries: Sequence[Entry], first_offset: int, timestamp_ms: int, known: Producers) -> Group:
    """Sorts out repetitions, also inside the group, numbers the rest and lays out its frames.

    Raises ValueError for an entry that fits no record: an empty or too large payload, a bad producer or sequence.
    """
    group = Group(first_offset, timestamp_ms)
    parts: list[bytes] = []
    positions: list[int] = []
    offsets = group.offsets
    offset, position = first_offset, 0
    anonymous = fields_template(timestamp_ms, _NOBODY)
    name, template, state = "", anonymous, _NO_STATE
    # The run of ``state`` that is being counted, and the sequence that would make it longer.
    run_offset, run, following = first_offset, 0, _NOTHING
    for entry in entries:
        payload, producer, sequence = entry.payload, entry.producer, entry.sequence
        size = len(payload) + OVERHEAD
        if not OVERHEAD < size <= MAX_PAYLOAD + OVERHEAD:
            raise ValueError(f"a payload of {len(payload)} bytes is not within 1 and {MAX_PAYLOAD}")
        fields = template
        if not producer:
            run, following = _end_run(state, run_offset, run, following), _NOTHING
            fields, sequence = anonymous, offset % (MAX_SEQUENCE + 1)
        elif sequence == following and producer == name and sequence <= MAX_SEQUENCE:
            run, following = run + 1, sequence + 1
        else:
            run, following = _end_run(state, run_offset, run, following), _NOTHING
            if not 0 <= sequence <= MAX_SEQUENCE:
                raise ValueError(f"sequence {sequence} is not within 0 and {MAX_SEQUENCE}")
            if producer != name:
                staged = group.producers.get(producer)
                if staged is None:
                    staged = group.producers[producer] = known.stage(producer)
                name, template, state = producer, fields_template(timestamp_ms, producer.encode()), staged
                fields = template
            if sequence <= state.last:
                before = state.find(sequence)
                if before is not None:
                    group.duplicates.add(len(offsets))
                    offsets.append(before)
                    continue
            elif sequence != state.last + 1 and state.last >= 0:
                group.producer_gaps += 1
            if sequence > state.last:
                run_offset, run, following = offset, 1, sequence + 1
            else:
                state.add(sequence, offset)
        if position + size > PIECE_BYTES:
            group.add_piece(parts, positions, offset)
            parts, positions, position = [], [], 0
        parts += record_parts(fields, offset, sequence, payload)
        offsets.append(offset)
        positions.append(position)
        position += size
        offset += 1
    _end_run(state, run_offset, run, following)
    group.add_piece(parts, positions, offset)
    return group


def _end_run(state: StagedProducer, offset: int, count: int, following: int) -> int:
    """Takes in a run of ``count`` sequences in a row that ends before ``following``; there is none then."""
    if count:
        state.add_run(following - count, offset, count)
    return 0
