"""Which publishes are already in the log: the last sequence of every producer, and where its newest ones lie.

A producer numbers its messages in rising order, so a sequence that is not above the last one is a repetition. The
answer to it tells the first offset; for that each producer keeps the newest *runs*: sequences in a row that got offsets
in a row.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from broker.record import check_producer

MOST_PRODUCERS = 100_000
FORGET_AFTER_MS = 30 * 24 * 3600 * 1000
MOST_RUNS = 256
MOST_RUNS_SAVED = 32

# What a repetition is told when its first offset is too long ago to be known.
UNKNOWN_OFFSET = -1

# producer, last sequence, when it was last heard (Unix milliseconds), runs as (sequence, offset) of their first.
ProducerRow = tuple[str, int, int, list[tuple[int, int]]]


class ProducerState:
    """One producer. ``last`` is its highest sequence, ``runs`` are (sequence, offset) of each run's first message."""

    __slots__ = ("last", "runs", "seen_ms")

    def __init__(self, last: int, seen_ms: int = 0, runs: list[tuple[int, int]] | None = None) -> None:
        self.last = last
        self.seen_ms = seen_ms
        self.runs: list[tuple[int, int]] = [] if runs is None else runs

    def offset_of(self, sequence: int) -> int:
        """The offset a sequence got, or UNKNOWN_OFFSET."""
        after = bisect_right(self.runs, sequence, key=lambda run: run[0])
        if not after:
            return UNKNOWN_OFFSET
        first, offset = self.runs[after - 1]
        offset += sequence - first
        if after < len(self.runs):
            # A sequence that was skipped lies between two runs and never got an offset.
            return offset if offset < self.runs[after][1] else UNKNOWN_OFFSET
        return offset

    @property
    def last_offset(self) -> int:
        """The offset of its last message."""
        return self.offset_of(self.last)

    def learn(self, sequence: int, offset: int) -> None:
        """Takes in that a new sequence lies at the offset."""
        first, start = self.runs[-1] if self.runs else (0, -1)
        if start < 0 or sequence != self.last + 1 or offset - start != sequence - first:
            self.runs.append((sequence, offset))
        self.last = sequence

    def trim(self) -> None:
        """Forgets the oldest runs over the limit, some at a time."""
        if len(self.runs) > MOST_RUNS:
            del self.runs[: len(self.runs) - MOST_RUNS * 3 // 4]


class Producers:
    """All known producers, the one heard longest ago first."""

    def __init__(self, rows: Iterable[ProducerRow] = ()) -> None:
        self._states: dict[str, ProducerState] = {}
        self.restore(rows)

    def __len__(self) -> int:
        return len(self._states)

    def get(self, producer: str) -> ProducerState | None:
        """What is known of the producer. Raises ValueError for an unknown one that is no producer id."""
        state = self._states.get(producer)
        if state is None:
            check_producer(producer)
        return state

    def learn(self, producer: str, sequence: int, offset: int, timestamp_ms: int) -> None:
        """Takes in one record found in the log; what is known already changes nothing."""
        state = self._states.pop(producer, None) or ProducerState(-1)
        if sequence > state.last:
            state.learn(sequence, offset)
            state.seen_ms = timestamp_ms
            state.trim()
        self._states[producer] = state
        self._forget_surplus()

    def restore(self, rows: Iterable[ProducerRow]) -> None:
        """Takes in states that were saved, where they are newer than what is known."""
        for producer, last, seen_ms, runs in rows:
            state = self._states.pop(producer, None) or ProducerState(-1)
            if last > state.last:
                older = [run for run in state.runs if run[0] < runs[0][0]]
                state = ProducerState(last, seen_ms, older + list(runs))
                state.trim()
            self._states[producer] = state
        self._forget_surplus()

    def merge(self, fresh: dict[str, ProducerState], now_ms: int) -> None:
        """Takes in what a group appended: the states it made hold only the group's own runs."""
        for producer, new in fresh.items():
            if not new.runs:
                continue
            state = self._states.pop(producer, None)
            if state is None:
                state = new
            elif new.runs[0] == (state.last + 1, state.last_offset + 1):
                state.runs += new.runs[1:]
            else:
                state.runs += new.runs
            state.last, state.seen_ms = new.last, now_ms
            state.trim()
            self._states[producer] = state
        self._forget_surplus()

    def forget_older_than(self, oldest_ms: int) -> None:
        """Forgets the producers that were not heard since."""
        # In order of when they were heard, so the first one that stays ends it.
        for producer, state in list(self._states.items()):
            if state.seen_ms >= oldest_ms:
                break
            del self._states[producer]

    def rows(self, since_offset: int = 0) -> list[ProducerRow]:
        """All of them as they are saved; only those with a message at ``since_offset`` or later."""
        return [
            (producer, state.last, state.seen_ms, state.runs[-MOST_RUNS_SAVED:])
            for producer, state in self._states.items()
            if not since_offset or state.last_offset >= since_offset
        ]

    def _forget_surplus(self) -> None:
        while len(self._states) > MOST_PRODUCERS:
            del self._states[next(iter(self._states))]
