"""Which members of a board count."""

from __future__ import annotations

import numpy as np
import pytest

from stores.aggregate.boards import board_means, counted, parts_of
from stores.aggregate.grouping import MemberIndex


def members(*parts: str) -> MemberIndex:
    """One board with these parts in the group ``g``, and another board without instances."""
    made = MemberIndex()
    for part in parts:
        made.member(("g",), "U", part)
    made.member(("g",), "V", "")
    return made


def test_a_board_comes_before_its_instances_in_each_row() -> None:
    of = members("2", "", "1")
    counts = np.array([[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 1.0, 1.0]])
    chosen = counted(parts_of(of), "add", counts, counts)
    assert chosen.tolist() == [[False, True, False, False], [True, False, True, True]]


@pytest.mark.parametrize(
    ("totals", "chosen"),
    [((2.0, 6.0, 1.0), "1"), ((2.0, 2.0, 1.0), "1"), ((3.0, 2.0, 1.0), "2"), ((0.3, 0.1 + 0.2, 0.1), "1")],
)
def test_of_a_metric_of_the_board_one_instance_counts(totals: tuple[float, ...], chosen: str) -> None:
    parts = ("2", "1", "3")
    of, counts = members(*parts), np.array([[1.0, 1.0, 1.0, 1.0]])
    found = counted(parts_of(of), "once", counts, np.array([[*totals, 5.0]]))
    assert found.tolist() == [[*(part == chosen for part in parts), True]]


def test_a_board_has_the_sum_or_the_mean_of_its_instances() -> None:
    of, counts, totals = members("1", "2"), np.array([[2.0, 1.0, 0.0]]), np.array([[6.0, 4.0, 0.0]])
    assert board_means(of, "add", counts, totals).tolist() == [[7.0], [0.0]]
    assert board_means(of, "average", counts, totals).tolist() == [[3.5], [0.0]]


def test_boards_without_instances_need_no_parts() -> None:
    of = members()
    assert parts_of(of).shape == (0, 1)
    assert counted(parts_of(of), "once", np.array([[2.0]]), np.array([[1.0]])).tolist() == [[True]]
