"""A board counts once: which of its readings count, and what its own value is.

Arrays have a row for each window (or each metric of one window) and a column for each member of a MemberIndex.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from readings.mig import Combination
from stores.aggregate.functions import Floats, Ints, Mask, rounded
from stores.aggregate.grouping import MemberIndex

_T = TypeVar("_T", np.float64, np.bool_)


def parts_of(members: MemberIndex) -> Ints:
    """The members of the boards that have several: a row for each board, the board itself first, then its instances.

    Where there are fewer, the number is one beyond the last member.
    """
    several, nobody = members.several(), len(members)
    width = max((len(instances) for _, instances in several), default=0)
    rows = [[*(own or (nobody,)), *instances, *[nobody] * (width - len(instances))] for own, instances in several]
    return np.array(rows, dtype=np.int64).reshape(len(rows), 1 + width)


def counted(parts: Ints, combination: Combination, counts: Floats, totals: Floats) -> Mask:
    """Which members count in which row, from their counts of readings and the sums of those. ``parts`` is from parts_of().

    A board's own readings come before those of its instances. With ``once`` a board has one member: that with the largest mean, of
    equal ones the first.
    """
    result = counts > 0
    if not len(parts):
        return result
    nobody = counts.shape[1]
    chosen = _with_nobody(result, False)[:, parts]
    chosen[:, :, 1:] &= ~chosen[:, :, :1]
    if combination == "once":
        means = _with_nobody(totals, 0.0)[:, parts] / np.maximum(_with_nobody(counts, 0.0)[:, parts], 1)
        # Rounded, so that the choice does not depend on the order of adding.
        best = np.argmax(np.where(chosen, rounded(means), -np.inf), axis=2)
        chosen &= best[:, :, np.newaxis] == np.arange(parts.shape[1])
    there = parts < nobody
    result[:, parts[there]] = chosen[:, there]
    return result


def board_means(members: MemberIndex, combination: Combination, counts: Floats, totals: Floats) -> Floats:
    """The mean of each board (row) in each row of the arguments (column), from the members that count; 0 without any.

    What does not count must be 0 in both arguments.
    """
    boards = np.array(members.board_of, dtype=np.int64)
    means = (totals / np.maximum(counts, 1)).T
    result = np.zeros((len(members.group_of_board), len(counts)))
    np.add.at(result, boards, means)
    if combination == "average":
        parts = np.zeros_like(result)
        np.add.at(parts, boards, (counts > 0).T.astype(np.float64))
        result /= np.maximum(parts, 1)
    return result


def _with_nobody(array: npt.NDArray[_T], value: float) -> npt.NDArray[_T]:
    return np.concatenate([array, np.full((len(array), 1), value, dtype=array.dtype)], axis=1)
