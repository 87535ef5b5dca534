"""Maps each reading to its group (host, model, pod …) and, within it, to a GPU and its MIG instance."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from stores.aggregate.arrays import Pod, ReadingSource
from stores.aggregate.functions import Ints
from stores.base import SeriesQuery

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
        if len(self.board_of) == len(self.group_of_board):
            return []
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
