"""Periods as bytes, and merged."""

from __future__ import annotations

import numpy as np
import pytest

from health.usage.packing import (
    FIGURES,
    FREE,
    GAP,
    HOUR_NS,
    BoardPlace,
    Figure,
    Holder,
    PackingError,
    Period,
    merge,
    pack,
    unpack,
)
from tests.health.usage.reckoning import cells_of

HOUR = 500_000 * HOUR_NS


def period_of(hour: int, holders: list[tuple[str, str] | int], known: int = HOUR_NS, host: str = "node-1") -> Period:
    """A GPU for each holder, with ``known`` ns of it."""
    named = [Holder(*holder) for holder in holders if not isinstance(holder, int)]
    figures = np.zeros((FIGURES, len(holders)), np.int64)
    figures[Figure.KNOWN] = known
    figures[Figure.COUNTED_MJ] = [10**number for number in range(len(holders))]
    return Period(
        HOUR + hour * HOUR_NS,
        1,
        tuple(BoardPlace(f"GPU-{number}", host, "H100") for number in range(len(holders))),
        np.full(len(holders), HOUR + 5),
        np.full(len(holders), HOUR + (hour + 1) * HOUR_NS - 7),
        tuple(dict.fromkeys(named)),
        np.arange(len(holders), dtype=np.int32),
        np.array(
            [
                holder if isinstance(holder, int) else list(dict.fromkeys(named)).index(Holder(*holder))
                for holder in holders
            ],
            np.int32,
        ),
        figures,
    )


@pytest.mark.parametrize(
    "period",
    [
        Period(HOUR, 1),
        period_of(0, [("ml", "a"), FREE, GAP, ("ml", "a"), ("", "b")]),
        period_of(3, [("ml", f"pod-{number}") for number in range(19)], known=2**62),
    ],
)
def test_a_period_is_what_it_was(period: Period) -> None:
    read = unpack(pack(period), period.start_ns, period.hours)
    assert (read.places, read.holders) == (period.places, period.holders)
    for name in ("first_ns", "last_ns", "place", "holder", "figures"):
        np.testing.assert_array_equal(getattr(read, name), getattr(period, name))


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_broken_bytes_are_an_error(cut: int) -> None:
    data = pack(period_of(0, [("ml", "a"), FREE]))
    with pytest.raises(PackingError, match="cannot be read"):
        unpack(data[: min(cut, len(data) - 1)], HOUR, 1)


def test_merging_adds_up() -> None:
    parts = [
        period_of(0, [("ml", "a"), FREE]),
        period_of(0, [("ml", "a"), FREE]),
        period_of(1, [("ml", "b"), GAP, FREE]),
        period_of(2, [FREE], host="node-2"),
        Period(HOUR, 1),
    ]
    day = merge(parts, HOUR, 24)
    expected: dict[object, list[int]] = {}
    for part in parts:
        for (_, place, holder), figures in cells_of([part]).items():
            cell = expected.setdefault((HOUR // HOUR_NS, place, holder), [0] * FIGURES)
            expected[HOUR // HOUR_NS, place, holder] = [x + y for x, y in zip(cell, figures, strict=True)]
    assert cells_of([day]) == expected
    assert day.end_ns == HOUR + 24 * HOUR_NS
    last = dict(zip(day.places, day.last_ns.tolist(), strict=True))
    assert last[BoardPlace("GPU-0", "node-1", "H100")] == HOUR + 2 * HOUR_NS - 7
    assert set(day.first_ns.tolist()) == {HOUR + 5}


def test_merging_nothing_is_nothing() -> None:
    day = merge([], HOUR, 24)
    assert (day.places, day.figures.shape) == ((), (FIGURES, 0))
