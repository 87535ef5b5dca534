"""What usage costs, from prices: exactly, so that the costs of groups add up to the total."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from health.usage.packing import HOUR_NS, Figure
from health.usage.prices import Prices
from health.usage.rows import UsageRow

# Costs are whole millionths.
_MILLIONTHS = 10**6
# Prices have at most 6 decimals, and a price x PUE at most 9.
_SCALE = 10**9
_MJ_PER_KWH = 3_600_000_000


class RowCosts(NamedTuple):
    """Costs in the currency of the prices; None where no price is set.

    ``held``: of the time that GPUs were held. ``idle``: what of it was held and idle. ``energy``: of all energy. ``co2_grams``
    comes with the energy.
    """

    held: Decimal | None
    idle: Decimal | None
    energy: Decimal | None
    co2_grams: float | None


def costs_of(rows: Sequence[UsageRow], total: UsageRow, prices: Prices) -> tuple[list[RowCosts], RowCosts]:
    """The costs of each row and of all. Rows are rounded so that they add up to the total."""
    by_model = {model: price for model in total.priced if (price := prices.of_model(model)) is not None}
    scaled = {model: int(price * _SCALE) for model, price in by_model.items()}

    def times(row: UsageRow, which: int) -> int:
        return sum(times[which] * scaled[model] for model, times in row.priced.items() if model in scaled)

    held = apportioned([times(row, 0) for row in rows], HOUR_NS)
    idle = apportioned([times(row, 1) for row in rows], HOUR_NS)
    per_kwh = None if prices.energy_per_kwh is None else int(prices.energy_per_kwh * prices.pue * _SCALE)
    energy = apportioned([row.energy_mj * (per_kwh or 0) for row in rows], _MJ_PER_KWH)

    def made(row: UsageRow, held: int, idle: int, energy: int) -> RowCosts:
        # Where nothing that was held has a price, the cost is not 0 but unknown.
        has_price = bool(scaled) and (any(model in scaled for model in row.priced) or not row.held[Figure.KNOWN])
        co2 = prices.co2_grams_per_kwh
        return RowCosts(
            _amount(held) if has_price else None,
            _amount(idle) if has_price else None,
            None if per_kwh is None else _amount(energy),
            None if co2 is None else row.energy_mj / _MJ_PER_KWH * float(prices.pue * co2),
        )

    each = [made(row, *of_row) for row, *of_row in zip(rows, held, idle, energy, strict=True)]
    return each, made(total, sum(held), sum(idle), sum(energy))


def models_without_price(total: UsageRow, prices: Prices) -> list[str]:
    """The models that were held and have no price."""
    return sorted(model for model in total.priced if prices.of_model(model) is None)


def apportioned(parts: Sequence[int], unit: int) -> list[int]:
    """Each part in millionths of ``unit`` x _SCALE, rounded up or down so that they add up to the rounded sum of all."""
    divisor = unit * _SCALE // _MILLIONTHS
    shares = [divmod(part, divisor) for part in parts]
    missing = (sum(parts) + divisor // 2) // divisor - sum(share for share, _ in shares)
    largest = sorted(range(len(parts)), key=lambda at: -shares[at][1])[:missing]
    found = [share for share, _ in shares]
    for at in largest:
        found[at] += 1
    return found


def _amount(millionths: int) -> Decimal:
    return Decimal(millionths) / _MILLIONTHS
