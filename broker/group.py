"""A group: the messages that are made durable together, with one write and one fsync."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from broker.producers import Producers, StagedProducer
from broker.record import MAX_PAYLOAD, MAX_SEQUENCE, NO_PRODUCER, OVERHEAD, fields_template, record_parts

_NOBODY = NO_PRODUCER.encode()
_NO_STATE = StagedProducer(None)
# Follows no sequence.
_NOTHING = MAX_SEQUENCE + 1


class Entry(msgspec.Struct, gc=False):
    """One message to append: a JSON text. Without a producer ("") repetitions are not noticed."""

    payload: bytes
    producer: str = ""
    sequence: int = 0


class Answer(msgspec.Struct, gc=False, frozen=True):
    """Where the message lies. A duplicate was there before: the offset is its first one, or -1 when long forgotten."""

    offset: int
    duplicate: bool


class Group:
    """The frames of a group, ready to be written: ``blob`` is all of them, ``positions`` where each begins in it.

    ``answers`` has one for each entry, in order; they hold once the group is durable.
    """

    def __init__(self, first_offset: int, timestamp_ms: int) -> None:
        self.first_offset = first_offset
        self.next_offset = first_offset
        self.timestamp_ms = timestamp_ms
        self.blob = b""
        self.positions: list[int] = []
        self.answers: list[Answer] = []
        self.duplicates = 0
        self.producer_gaps = 0
        self.producers: dict[str, StagedProducer] = {}

    @property
    def frames(self) -> list[bytes]:
        """The frames one by one."""
        return [self.blob[start:end] for start, end in pairwise([*self.positions, len(self.blob)])]


def build_group(entries: Sequence[Entry], first_offset: int, timestamp_ms: int, known: Producers) -> Group:
    """Sorts out repetitions, also inside the group, numbers the rest and lays out its frames.

    Raises ValueError for an entry that fits no record: an empty or too large payload, a bad producer or sequence.
    """
    group = Group(first_offset, timestamp_ms)
    parts: list[bytes] = []
    answers, positions = group.answers, group.positions
    offset, position = first_offset, 0
    anonymous = fields_template(timestamp_ms, _NOBODY)
    name, template, state = "", anonymous, _NO_STATE
    # The run of ``state`` that is being counted, and the sequence that would make it longer.
    run_offset, run, following = first_offset, 0, _NOTHING
    for entry in entries:
        payload, producer, sequence = entry.payload, entry.producer, entry.sequence
        if not 0 < len(payload) <= MAX_PAYLOAD:
            raise ValueError(f"a payload of {len(payload)} bytes is not within 1 and {MAX_PAYLOAD}")
        if not producer:
            run, following = _end_run(state, run_offset, run, following), _NOTHING
            parts += record_parts(anonymous, offset, offset % (MAX_SEQUENCE + 1), payload)
        elif sequence == following and producer == name and sequence <= MAX_SEQUENCE:
            run, following = run + 1, sequence + 1
            parts += record_parts(template, offset, sequence, payload)
        else:
            run, following = _end_run(state, run_offset, run, following), _NOTHING
            if not 0 <= sequence <= MAX_SEQUENCE:
                raise ValueError(f"sequence {sequence} is not within 0 and {MAX_SEQUENCE}")
            if producer != name:
                staged = group.producers.get(producer)
                if staged is None:
                    staged = group.producers[producer] = known.stage(producer)
                name, template, state = producer, fields_template(timestamp_ms, producer.encode()), staged
            if sequence <= state.last:
                before = state.find(sequence)
                if before is not None:
                    answers.append(Answer(before, True))
                    continue
            elif sequence != state.last + 1 and state.last >= 0:
                group.producer_gaps += 1
            if sequence > state.last:
                run_offset, run, following = offset, 1, sequence + 1
            else:
                state.add(sequence, offset)
            parts += record_parts(template, offset, sequence, payload)
        answers.append(Answer(offset, False))
        positions.append(position)
        position += OVERHEAD + len(payload)
        offset += 1
    _end_run(state, run_offset, run, following)
    group.next_offset = offset
    group.duplicates = len(answers) - len(positions)
    group.blob = b"".join(parts)
    return group


def _end_run(state: StagedProducer, offset: int, count: int, following: int) -> int:
    """Takes in a run of ``count`` sequences in a row that ends before ``following``; there is none then."""
    if count:
        state.add_run(following - count, offset, count)
    return 0
