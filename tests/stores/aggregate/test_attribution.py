"""Who held a GPU at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stores.aggregate.attribution import AssignmentTimeline, timelines
from stores.base import PodAssignment


def assignment(pod: str, start: int, end: int | None, of: str = "GPU-1") -> PodAssignment:
    return PodAssignment(of, "ml", pod, "main", start, end)


def pods(found: AssignmentTimeline, times: list[int]) -> list[str | None]:
    return [None if place < 0 else found.pods[place][1] for place in found.at(np.array(times)).tolist()]


def test_the_one_that_came_last_has_it_and_then_the_one_before() -> None:
    found = AssignmentTimeline([assignment("a", 10, 50), assignment("b", 20, 30), assignment("a", 60, None)])
    assert pods(found, [9, 10, 19, 20, 29, 30, 49, 50, 59, 60, 1 << 62]) == [
        None, "a", "a", "b", "b", "a", "a", None, None, "a", "a",
    ]  # fmt: skip


def test_a_stretch_of_time_has_one_holder_or_not() -> None:
    found = AssignmentTimeline([assignment("a", 10, 50), assignment("b", 20, 30)])
    assert found.throughout(10, 20) == ("ml", "a", "main")
    assert found.throughout(30, 50) == ("ml", "a", "main")
    assert found.throughout(10, 21) is None
    assert found.throughout(0, 10) is None
    assert [found.changes(*each) for each in ((0, 10), (0, 11), (10, 20), (19, 21), (50, 90))] == [
        False, True, False, True, False,
    ]  # fmt: skip


def test_what_pods_share_is_of_their_common_namespace() -> None:
    def share(pod: str, namespace: str, start: int, end: int | None) -> PodAssignment:
        return PodAssignment("GPU-1", namespace, pod, "main", start, end, share=True)

    found = AssignmentTimeline(
        [share("a", "ml", 10, 50), share("b", "ml", 20, 40), share("c", "web", 30, 40), assignment("alone", 60, None)]
    )
    times = np.array([9, 10, 19, 20, 29, 30, 39, 40, 49, 50, 60])
    assert [None if place < 0 else found.pods[place] for place in found.at(times).tolist()] == [
        None, *[("ml", "a", "main")] * 2, *[("ml", "", "")] * 2, None, None, *[("ml", "a", "main")] * 2, None,
        ("ml", "alone", "main"),
    ]  # fmt: skip


def test_each_gpu_has_its_own() -> None:
    found = timelines([assignment("a", 1, 2), assignment("b", 1, 2, "GPU-2")])
    assert {gpu: pods(timeline, [1]) for gpu, timeline in found.items()} == {"GPU-1": ["a"], "GPU-2": ["b"]}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.none() | st.integers(1, 20)), max_size=8))
def test_any_overlaps(drawn: list[tuple[str, int, int | None]]) -> None:
    all_of = [assignment(pod, start, None if length is None else start + length) for pod, start, length in drawn]
    found = AssignmentTimeline(all_of)
    expected: list[str | None] = []
    for time in range(60):
        there = [each for each in all_of if each.start_ns <= time and (each.end_ns is None or time < each.end_ns)]
        expected.append(max(there, key=lambda each: (each.start_ns, each[1:4])).pod if there else None)
    assert pods(found, list(range(60))) == expected
