"""Cutting spans, and what the meter keeps of units and hours."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from health.usage.books import HourBooks
from health.usage.intervals import effective_share, utilisation
from health.usage.packing import FIGURES, FREE, HOUR_NS
from health.usage.runs import IDLE_RUN_NS, IdleRuns, Pieces
from health.usage.sharing import SharedBoards
from health.usage.spans import AMOUNTS, Spans, cut
from health.usage.units import MeterUnits


def span_of(start: int, length: int, amount: int, parts: int) -> Spans:
    """A span once for each of its parts."""
    one = np.ones(parts, np.int64)
    nan = np.full(parts, np.nan)
    return Spans(
        one, one, one * start, one * length, one, one, nan, nan, one > 1, np.arange(parts), one * parts,
        np.full((len(AMOUNTS), parts), amount),
    )  # fmt: skip


@given(st.integers(0, 3 * HOUR_NS), st.integers(0, 30 * HOUR_NS), st.integers(0, 10**12), st.integers(1, 7))
def test_what_is_cut_adds_up(start: int, length: int, amount: int, parts: int) -> None:
    pieces = cut(span_of(start, length, amount, parts))
    assert pieces.length.sum() == length
    assert pieces.amounts.sum(axis=1).tolist() == [amount] * len(AMOUNTS)
    assert pieces.amounts.size == 0 or pieces.amounts.min() >= 0
    hours = length and -(-(start + length) // HOUR_NS) - start // HOUR_NS
    assert len(pieces.length) <= max(hours, 1) * parts


def test_units_keep_what_they_have_when_they_grow() -> None:
    units = MeterUnits(3)
    for number in range(500):
        unit = units.find(f"GPU-{number}")
        units.first[unit] = units.last[unit] = number + 1
        units.values[:, unit] = number
    other = MeterUnits(3)
    other.restore(units.ids, units.spare, units.state())
    assert [other.find(f"GPU-{number}") for number in range(500)] == list(range(500))
    np.testing.assert_array_equal(other.boards(), np.arange(500))
    np.testing.assert_array_equal(other.values[1, :500], np.arange(500))
    assert other.holder[499] == FREE
    assert np.isnan(other.values[0, 500])


def test_a_unit_of_a_run_serves_again() -> None:
    units = MeterUnits(1)
    first = units.add_run()
    units.run[:, first] = 7
    units.drop_run(first)
    assert units.add_run() == first
    assert units.run[:, first].tolist() == [0, 0]
    assert units.add_run() != first
    assert SharedBoards(units).lanes == {}


def test_books_add_up_by_cell() -> None:
    books = HourBooks()
    for _ in range(2):
        hour, unit = np.array([5, 4, 5, 5]), np.array([1, 1, 1, 2])
        books.add(hour, unit, unit, unit, np.ones((FIGURES, 4), np.int64))
    assert list(books) == [4, 5]
    assert books[5].figures[0].tolist() == [4, 2]
    assert books[5].keys.tolist() == [[1, 1, 1], [2, 2, 2]]


def test_a_run_waits_until_it_is_long_enough() -> None:
    units = MeterUnits(1)
    lane = units.find("GPU-1")
    units.run_holder[lane] = 0
    runs = IdleRuns(0, units)
    one, yes = np.array([lane]), np.array([True])
    half = Pieces(one, one, one, one, np.array([0]), np.array([IDLE_RUN_NS // 2]), np.array([9]))
    counts, settled = runs.take(half, yes, ~yes)
    assert (counts.tolist(), settled.length.tolist()) == ([False], [])
    counts, settled = runs.take(half, yes, ~yes)
    assert (counts.tolist(), settled.length.tolist(), settled.energy.tolist()) == ([True], [IDLE_RUN_NS // 2], [9])
    assert runs.pending.length.tolist() == []


def test_the_engine_counts_where_it_is_busier() -> None:
    values = np.array([[50.0, np.nan, 5.0, np.nan], [0.1, 0.2, np.nan, np.nan], [np.nan, 0.1, np.nan, np.nan]])
    np.testing.assert_allclose(utilisation(values), [50.0, 20.0, 5.0, np.nan])
    share, is_bound = effective_share(values)
    np.testing.assert_allclose(share, [0.5, 0.1, 0.05, np.nan])
    assert is_bound.tolist() == [True, False, True, False]
