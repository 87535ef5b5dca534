"""Portions: beginning, leaving out and stopping in the middle of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stores.base import Position, ReadingsQuery, RowBatch, SeriesLabels
from stores.paging import bounded, joined

ORIGINS = [SeriesLabels(name, "GPU-1", "", 0, "", "", "h", "", "", "") for name in ("a", "b")]


def portions(rows: int, each: int) -> Iterator[RowBatch]:
    """Rows of two metrics, two at each time, the newest first."""
    for start in range(0, rows, each):
        places = range(start, min(start + each, rows))
        yield RowBatch(
            [-(place // 2) for place in places],
            [float(place) for place in places],
            [place % 2 for place in places],
            ORIGINS,
        )


def values(query: ReadingsQuery, each: int) -> list[float]:
    return [value for portion in bounded(portions(20, each), query) for value in portion.values]


@pytest.mark.parametrize("each", [1, 3, 20])
def test_bounds(each: int) -> None:
    whole = [float(place) for place in range(20)]
    assert values(ReadingsQuery(limit=None), each) == whole
    assert values(ReadingsQuery(limit=7), each) == whole[:7]
    assert values(ReadingsQuery(limit=0), each) == []
    assert values(ReadingsQuery(limit=5, offset=4), each) == whole[4:9]
    assert values(ReadingsQuery(limit=None, offset=19), each) == whole[19:]
    assert values(ReadingsQuery(limit=None, offset=50), each) == []
    after = Position(-3, "GPU-1", "a")
    assert values(ReadingsQuery(limit=None, after=after), each) == whole[7:]
    assert values(ReadingsQuery(limit=3, offset=2, after=after), each) == whole[9:12]
    assert values(ReadingsQuery(limit=None, after=Position(-99, "", "")), each) == []


def test_no_more_is_read_than_is_wanted() -> None:
    source = portions(20, 5)
    assert joined(bounded(source, ReadingsQuery(limit=5))).values == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert next(source).values[0] == 5.0


def test_joined() -> None:
    whole = joined(portions(20, 3))
    assert whole.values == [float(place) for place in range(20)]
    assert [whole.position(row).metric_name for row in range(4)] == ["a", "b", "a", "b"]
    assert len(joined(iter(()))) == 0
