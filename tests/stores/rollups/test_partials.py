"""The partial aggregates of sources: made in parts, merged, taken apart and put together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.aggregate.arrays import ReadingSource
from stores.rollups.partials import NEVER_NS, SourcePartials, together
from tests.stores.rollups.reckoning import ENERGY, MINUTE, SECOND, UNTIMED, UTIL, Given, flat, gpu, partials, points

ARRAYS = ("count", "total", "low", "high", "last", "last_ns", "steps", "increase", "carried")
U = ReadingSource("U", "", "host-0", "A")


def cells(of: SourcePartials) -> dict[tuple[ReadingSource, str], dict[str, float]]:
    """What is there of each source and metric that has a reading."""
    return {
        (source, name): {each: float(np.nan_to_num(getattr(of, each)[row, column], nan=-1.0)) for each in ARRAYS}
        for row, source in enumerate(of.sources)
        for column, name in enumerate(of.names)
        if of.count[row, column]
    }


def test_each_array_says_what_it_should() -> None:
    of = gpu("U")
    readings = [Given(of, ENERGY, time, value) for time, value in ((-5, 10.0), (3, 16.0), (9, 4.0), (7, 20.0))]
    found = cells(partials(readings, 0, MINUTE))
    assert found == {
        (U, ENERGY): {
            "count": 3, "total": 40, "low": 4, "high": 20, "last": 4, "last_ns": 9,
            "steps": 3, "increase": 14, "carried": 6,
        }
    }  # fmt: skip
    (gauge,) = cells(partials([each._replace(name=UTIL) for each in readings], 0, MINUTE)).values()
    assert (gauge["steps"], gauge["increase"], gauge["carried"]) == (0, 0, -1)


def test_a_cell_without_a_reading_holds_nothing() -> None:
    found = partials([Given(gpu("U"), UTIL, 0, 1.0)], 0, MINUTE)
    at = (0, found.names.index(ENERGY))
    assert [getattr(found, each)[at] for each in ("count", "total", "steps", "increase")] == [0, 0, 0, 0]
    assert all(np.isnan(getattr(found, each)[at]) for each in ("low", "high", "last", "carried"))
    assert found.last_ns[at] == NEVER_NS
    assert SourcePartials.empty(0, 1).count.shape == (0, 0)


@UNTIMED
@given(found=points(minutes=2), edges=st.sets(st.integers(MINUTE + 1, 2 * MINUTE - 1), max_size=4))
def test_readings_may_come_in_parts(found: list[list[Given]], edges: set[int]) -> None:
    readings = flat(found)
    whole = partials(readings, MINUTE, 2 * MINUTE)
    assert cells(partials(readings, MINUTE, *sorted(edges), 2 * MINUTE)) == cells(whole)


@UNTIMED
@given(found=points(minutes=2), edge=st.integers(MINUTE + 1, 2 * MINUTE - 1))
def test_parts_of_a_window_merge_into_it(found: list[list[Given]], edge: int) -> None:
    readings = flat(found)
    merged = partials(readings, MINUTE, edge).merge_later(partials(readings, edge, 2 * MINUTE))
    assert cells(merged) == cells(partials(readings, MINUTE, 2 * MINUTE))
    assert (merged.begins_ns, merged.ends_ns) == (MINUTE, 2 * MINUTE)


@UNTIMED
@given(found=points(minutes=1), gpus=st.sets(st.sampled_from(["U", "U:1", "V", "W:2", "X"])))
def test_gpus_are_taken_apart_and_put_together(found: list[list[Given]], gpus: set[str]) -> None:
    whole = partials(flat(found), 0, MINUTE)
    some, others = whole.of_gpus(gpus), whole.without(gpus)
    assert {source.gpu for source in some.sources} <= gpus
    assert not {source.gpu for source in others.sources} & gpus
    assert cells(together([others, some])) == cells(whole)


def test_what_is_put_together_may_have_other_metrics() -> None:
    one = partials([Given(gpu("U"), UTIL, 0, 1.0)], 0, MINUTE)
    other = SourcePartials.of(0, MINUTE, {"other": []})
    assert cells(together([one, other])) == cells(one)
    assert together([one, other]).names[-1] == "other"
    with pytest.raises(ValueError, match="two partials"):
        together([one, one])


def test_a_gpu_that_moved_carries_once() -> None:
    readings = [
        Given(gpu("U", host=0), ENERGY, -1, 5.0),
        Given(gpu("U", host=0), ENERGY, SECOND, 8.0),
        Given(gpu("U", host=1), ENERGY, 2 * SECOND, 9.0),
    ]
    for found in (
        partials(readings, 0, MINUTE),
        partials(readings, 0, 2 * SECOND).merge_later(partials(readings, 2 * SECOND, MINUTE)),
    ):
        carried = {source.hostname: cell["carried"] for (source, _), cell in cells(found).items()}
        assert carried == {"host-0": 3, "host-1": -1}
