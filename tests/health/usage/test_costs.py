"""Costs of usage."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from health.usage.costs import apportioned, costs_of, models_without_price
from health.usage.packing import FIGURES, HOUR_NS, Figure
from health.usage.prices import Prices
from health.usage.rows import UsageRow

PRICES = Prices(
    "EUR", {"H100": Decimal("2.5"), "A100": Decimal("1.333333")}, Decimal("0.2"), Decimal("1.5"), Decimal(400)
)


def row_of(energy_mj: int = 0, **priced: tuple[int, int]) -> UsageRow:
    """A row with these ns held and idle, by model."""
    held = [0] * FIGURES
    held[Figure.KNOWN] = sum(known for known, _ in priced.values())
    held[Figure.COUNTED_MJ] = energy_mj
    return UsageRow(("x",), held=held, priced=priced)


def test_held_time_and_energy_cost_what_the_prices_say() -> None:
    row = row_of(3_600_000_000_000, H100=(4 * HOUR_NS, HOUR_NS), A100=(HOUR_NS, 0), T4=(HOUR_NS, HOUR_NS))
    [costs], total = costs_of([row], row, PRICES)
    assert costs == total
    assert costs.held == Decimal("11.333333")
    assert costs.idle == Decimal("2.5")
    assert costs.energy == 1000 * Decimal("0.2") * Decimal("1.5")
    assert costs.co2_grams == 1000 * 1.5 * 400
    assert models_without_price(row, PRICES) == ["T4"]


def test_what_has_no_price_has_no_cost() -> None:
    row = row_of(T4=(HOUR_NS, HOUR_NS))
    [costs], _ = costs_of([row], row, PRICES)
    assert (costs.held, costs.idle, costs.energy) == (None, None, Decimal(0))
    nothing = row_of()
    assert costs_of([nothing], row_of(H100=(1, 1)), PRICES)[0][0].held == Decimal(0)
    only_energy = Prices("EUR", {}, Decimal(1))
    assert costs_of([row], row, only_energy)[1].held is None
    assert costs_of([row], row, Prices("EUR", {"T4": Decimal(1)}))[1][2:] == (None, None)


@given(st.lists(st.integers(0, 10**24)), st.sampled_from([HOUR_NS, 3_600_000_000]))
def test_rounded_costs_add_up_to_the_rounded_total(parts: list[int], unit: int) -> None:
    found = apportioned(parts, unit)
    divisor = unit * 1000
    assert sum(found) == (sum(parts) + divisor // 2) // divisor
    assert all(abs(each - Fraction(part, divisor)) < 1 for each, part in zip(found, parts, strict=True))
