"""Whose readings are counted together."""

from __future__ import annotations

from typing import Any

from stores.aggregate.arrays import ReadingSource
from stores.aggregate.buckets import Buckets
from stores.aggregate.grouping import GroupIndex
from stores.base import SeriesQuery

BOARD = ReadingSource("GPU-1", "", "host-a", "H100")
PARTS = [BOARD._replace(mig_id=number) for number in "12"]


def members(**query: Any) -> GroupIndex:
    return GroupIndex(SeriesQuery(metric_name="U", buckets=Buckets(0, 1, 1), **query))


def test_a_board_and_its_instances_are_members_of_one_board() -> None:
    found = members(by="host")
    assert [found.number(each, None) for each in (BOARD, *PARTS, BOARD)] == [0, 1, 2, 0]
    assert found.groups == {("host-a",): 0}
    assert (found.board_of, found.is_board, found.group_of_board) == ([0, 0, 0], [True, False, False], [0])
    assert found.several() == [([0], [1, 2])]


def test_a_gpu_that_moved_is_one_member_unless_hosts_are_told_apart() -> None:
    moved = BOARD._replace(hostname="host-b")
    for by, numbers in (("gpu", [0, 0]), ("model", [0, 0]), (None, [0, 0]), ("host", [0, 1])):
        found = members(by=by)
        assert [found.number(each, None) for each in (BOARD, moved)] == numbers
        assert found.several() == []


def test_an_instance_stands_for_itself_where_it_is_asked_for() -> None:
    found = members(by="gpu", gpus=("GPU-1:2",))
    found.number(PARTS[1], None)
    assert list(found.groups) == [("GPU-1:2",)]
    found = members(by="gpu", mig=True)
    assert [found.number(each, None) for each in (BOARD, *PARTS)] == [0, 1, 2]
    assert found.several() == []


def test_holders_that_were_not_asked_for_are_no_members() -> None:
    found = members(by="pod", assignments=(), namespaces=("ml",))
    assert found.number(BOARD, ("web", "serve", "")) == -1
    assert found.number(BOARD, ("ml", "train", "")) == 0
    assert found.groups == {("ml", "train"): 0}
    found = members(by="namespace", assignments=(), pods=("train",))
    assert [found.number(BOARD, ("ml", pod, "")) for pod in ("train", "serve")] == [0, -1]
    assert found.groups == {("ml",): 0}
    assert len(found) == 1
