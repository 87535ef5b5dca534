"""Maps each reading to its group (host, model, pod …) and, within it, to a GPU and its MIG instance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stores.aggregate.attribution import Pod
from stores.aggregate.functions import Floats, Ints, Mask
from stores.base import SeriesQuery


class ReadingSource(NamedTuple):
    """The GPU of some readings, with its host and model, and for a share its pod."""

    uuid: str
    mig_id: str
    hostname: str
    model: str
    pod: Pod | None = None

    @property
    def gpu(self) -> str:
        """The GPU's identity (see readings.model.Gpu.id)."""
        return f"{self.uuid}:{self.mig_id}" if self.mig_id else self.uuid


class ReadingArrays(NamedTuple):
    """Readings of one metric in any order. ``places`` are indexes into ``sources``; ``times`` are nanoseconds."""

    sources: Sequence[ReadingSource]
    places: Ints
    times: Ints
    values: Floats

    def only(self, chosen: Mask | Ints) -> ReadingArrays:
        """The readings that a mask or index selects."""
        return ReadingArrays(self.sources, self.places[chosen], self.times[chosen], self.values[chosen])


def columns_of(sources: Sequence[ReadingSource], rows: Sequence[tuple[int, int, float]]) -> ReadingArrays:
    """Arrays from rows of (place, time, value)."""
    places, times, values = zip(*rows, strict=True) if rows else ((), (), ())
    return ReadingArrays(
        sources,
        np.array(places, dtype=np.int64),
        np.array(times, dtype=np.int64),
        np.array(values, dtype=np.float64),
    )


Group = tuple[str, ...]


class MemberIndex:
    """Numbers the groups, the boards in each group, and the members of a board: itself and its MIG instances."""

    def __init__(self) -> None:
        self.groups: dict[Group, int] = {}
        self._boards: dict[tuple[int, str], int] = {}
        self._members: dict[tuple[int, str], int] = {}
        self.group_of_board: list[int] = []
        self.board_of: list[int] = []
        self.is_board: list[bool] = []

    def __len__(self) -> int:
        return len(self.board_of)

    def member(self, group: Group, board: str, part: str) -> int:
        """The number of a board's part in a group; the part of the board itself is empty."""
        group_number = self.groups.setdefault(group, len(self.groups))
        board_number = self._boards.setdefault((group_number, board), len(self._boards))
        if board_number == len(self.group_of_board):
            self.group_of_board.append(group_number)
        number = self._members.setdefault((board_number, part), len(self._members))
        if number == len(self.board_of):
            self.board_of.append(board_number)
            self.is_board.append(not part)
        return number

    def group_of_member(self) -> Ints:
        """The group of each member."""
        return np.array(self.group_of_board, dtype=np.int64)[np.array(self.board_of, dtype=np.int64)]

    def several(self) -> list[tuple[list[int], list[int]]]:
        """For each board with more than one member: the board itself, if it is one, and its instances by their ids."""
        members: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for (board, part), number in sorted(self._members.items()):
            members[board][1 if part else 0].append(number)
        return [each for each in members.values() if len(each[0]) + len(each[1]) > 1]


class GroupIndex(MemberIndex):
    """The members of a query's groups."""

    def __init__(self, query: SeriesQuery) -> None:
        super().__init__()
        self._query = query

    def number(self, source: ReadingSource, pod: Pod | None) -> int:
        """The member that a source is while the pod has it; -1 if the query excludes that pod."""
        query = self._query
        if pod is not None and (
            (query.namespaces and pod[0] not in query.namespaces) or (query.pods and pod[1] not in query.pods)
        ):
            return -1
        alone = query.mig or source.gpu in query.gpus
        board = source.gpu if alone else source.uuid
        return self.member(self._group(source, pod, board), board, "" if alone else source.mig_id)

    def _group(self, source: ReadingSource, pod: Pod | None, board: str) -> Group:
        match self._query.by:
            case "gpu":
                return (board,)
            case "host":
                return (source.hostname,)
            case "model":
                return (source.model,)
            case "namespace":
                return (pod[0] if pod else "",)
            case "pod":
                return (pod[0], pod[1]) if pod else ("", "")
        return ()
