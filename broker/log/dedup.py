"""Duplicate suppression: which sequences of each producer are in the log, and at which offsets the newest ones lie.

A producer numbers its messages in rising order, so its history is a few *runs*: consecutive sequences at consecutive
offsets. The sequences between two runs were never appended, for example because the disk was full, and are accepted when
they are sent again. Only the newest runs are kept; everything below them counts as appended.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from broker.log.record import check_producer

MOST_PRODUCERS = 100_000
FORGET_AFTER_MS = 30 * 24 * 3600 * 1000
MOST_RUNS = 256
MOST_RUNS_SAVED = 64

# The offset reported for a duplicate whose first offset is no longer known.
UNKNOWN_OFFSET = -1

# First sequence, its offset, how many.
Run = tuple[int, int, int]
# producer, floor, last heard (Unix milliseconds), runs.
ProducerRow = tuple[str, int, int, list[Run]]


class ProducerState:
    """The sequences of one producer. Those below ``floor`` count as appended; runs are in rising order."""

    __slots__ = ("_runs", "floor", "seen_ms")

    def __init__(self, floor: int = 0, seen_ms: int = 0) -> None:
        self.floor = floor
        self.seen_ms = seen_ms
        # [first sequence, its offset, how many]
        self._runs: list[list[int]] = []

    @property
    def last(self) -> int:
        """The highest sequence, or -1."""
        return self._runs[-1][0] + self._runs[-1][2] - 1 if self._runs else self.floor - 1

    @property
    def last_offset(self) -> int:
        """The offset of the highest sequence, or UNKNOWN_OFFSET."""
        return self._runs[-1][1] + self._runs[-1][2] - 1 if self._runs else UNKNOWN_OFFSET

    def find(self, sequence: int) -> int | None:
        """Returns a sequence's offset, UNKNOWN_OFFSET if that is forgotten, or None if it was never appended."""
        if sequence < self.floor:
            return UNKNOWN_OFFSET
        after = bisect_right(self._runs, sequence, key=_first)
        if after:
            first, offset, count = self._runs[after - 1]
            if sequence < first + count:
                return offset + sequence - first
        return None

    def add(self, sequence: int, offset: int, count: int = 1) -> None:
        """Adds consecutive sequences at consecutive offsets; none of them may be known."""
        if self._runs:
            run = self._runs[-1]
            if sequence - run[2] == run[0] and offset - run[2] == run[1]:
                run[2] += count
                return
        self._insert(sequence, offset, count)

    def add_run(self, first: int, offset: int, count: int) -> None:
        """Adds a run. Sequences already known keep their offsets."""
        end = first + count
        while first < end:
            after = bisect_right(self._runs, first, key=_first)
            known_end = sum(self._runs[after - 1][::2]) if after else first
            if known_end > first:
                size = min(known_end, end) - first
            else:
                size = (min(self._runs[after][0], end) if after < len(self._runs) else end) - first
                self._insert(first, offset, size)
            first, offset = first + size, offset + size

    def add_state(self, other: ProducerState) -> None:
        """Merges another state of the same producer."""
        self.floor = max(self.floor, other.floor)
        self.seen_ms = max(self.seen_ms, other.seen_ms)
        for first, offset, count in other._runs:
            self.add_run(first, offset, count)
        self.trim()

    def trim(self) -> None:
        """Drops the oldest runs if there are too many."""
        if len(self._runs) > MOST_RUNS:
            # Drops a quarter at once, so that this is rare.
            del self._runs[: len(self._runs) - MOST_RUNS * 3 // 4]
            self.floor = max(self.floor, self._runs[0][0])

    def runs(self, most: int) -> list[Run]:
        """Returns a copy of the newest runs."""
        return [(first, offset, count) for first, offset, count in self._runs[-most:]]

    def _insert(self, first: int, offset: int, count: int) -> None:
        at = bisect_right(self._runs, first, key=_first)
        if at:
            before = self._runs[at - 1]
            if before[0] + before[2] == first and before[1] + before[2] == offset:
                before[2] += count
                return
        self._runs.insert(at, [first, offset, count])


class StagedProducer:
    """One producer while a batch is built: what was known before, and what the batch adds."""

    __slots__ = ("_before", "fresh", "last")

    def __init__(self, before: ProducerState | None) -> None:
        self.last = before.last if before else -1
        self.fresh = ProducerState()
        self._before = before

    def find(self, sequence: int) -> int | None:
        """Like ``ProducerState.find``, in the batch and before it."""
        if sequence > self.last:
            return None
        found = self.fresh.find(sequence)
        return self._before.find(sequence) if found is None and self._before else found

    def add(self, sequence: int, offset: int, count: int) -> None:
        """Adds consecutive sequences at consecutive offsets that the batch appends."""
        self.fresh.add(sequence, offset, count)
        self.last = max(self.last, sequence + count - 1)


class ProducerStates:
    """All known producers, least recently heard first."""

    def __init__(self, rows: Iterable[ProducerRow] = ()) -> None:
        self._states: dict[str, ProducerState] = {}
        self.restore(rows)

    def __len__(self) -> int:
        return len(self._states)

    def stage(self, producer: str) -> StagedProducer:
        """Returns the producer's state for a new batch. Raises ValueError if it is unknown and not a valid id."""
        state = self._states.get(producer)
        if state is None:
            check_producer(producer)
        return StagedProducer(state)

    def merge(self, staged: dict[str, StagedProducer], now_ms: int) -> None:
        """Merges what a committed batch added."""
        for producer, entry in staged.items():
            entry.fresh.seen_ms = now_ms
            self._take(producer, entry.fresh)

    def learn(self, producer: str, sequence: int, offset: int, timestamp_ms: int) -> None:
        """Adds one record found in the log; a known sequence changes nothing."""
        state = self._states.pop(producer, None) or ProducerState()
        if state.find(sequence) is None:
            state.add(sequence, offset)
            state.trim()
        state.seen_ms = max(state.seen_ms, timestamp_ms)
        self._put(producer, state)

    def restore(self, rows: Iterable[ProducerRow]) -> None:
        """Merges saved states."""
        for producer, floor, seen_ms, runs in rows:
            found = ProducerState(floor, seen_ms)
            for first, offset, count in runs:
                found.add_run(first, offset, count)
            self._take(producer, found)

    def forget_older_than(self, oldest_ms: int) -> None:
        """Forgets producers last heard before ``oldest_ms``."""
        while self._states:
            producer = next(iter(self._states))
            if self._states[producer].seen_ms >= oldest_ms:
                break
            del self._states[producer]

    def rows(self, since_offset: int = 0) -> list[ProducerRow]:
        """Returns the states to save, only of producers whose last message lies at ``since_offset`` or later."""
        rows = []
        for producer, state in self._states.items():
            if state.last_offset >= since_offset or not since_offset:
                runs = state.runs(MOST_RUNS_SAVED)
                # Runs that are not saved count as appended from then on.
                floor = runs[0][0] if len(runs) == MOST_RUNS_SAVED else state.floor
                rows.append((producer, floor, state.seen_ms, runs))
        return rows

    def _take(self, producer: str, found: ProducerState) -> None:
        state = self._states.pop(producer, None)
        if state is None:
            state = found
        else:
            state.add_state(found)
        self._put(producer, state)

    def _put(self, producer: str, state: ProducerState) -> None:
        # Callers removed it first, so that the dict stays in the order in which producers were heard.
        self._states[producer] = state
        while len(self._states) > MOST_PRODUCERS:
            del self._states[next(iter(self._states))]


def _first(run: list[int]) -> int:
    return run[0]
