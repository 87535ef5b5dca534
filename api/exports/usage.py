"""Usage as rows of an export: one row for each group and day, with the range and the figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from api.exports.formats import Column, ColumnValues, csv_line
from api.schema.usage_answers import UsageAnswer, UsageCostsAnswer, UsageFiguresAnswer, UsageRowAnswer

# Rows in one part.
PART_ROWS = 1000
COSTS = UsageCostsAnswer.__struct_fields__
FIGURES = tuple(name for name in UsageFiguresAnswer.__struct_fields__ if name not in ("costs", "co2_grams"))


class UsageRows(NamedTuple):
    """Some rows; each has a value for each column."""

    rows: Sequence[tuple[Any, ...]]

    def __len__(self) -> int:
        return len(self.rows)


class UsageLayout:
    """Lays out the rows of one answer (see api.exports.formats.Layout). Costs are columns only where there are prices."""

    def __init__(self, answer: UsageAnswer, groups: Sequence[str]) -> None:
        self._answer = answer
        self._groups = groups
        self._has_costs = answer.currency is not UNSET
        self._has_co2 = answer.total.co2_grams is not UNSET
        figures = [Column(name, "integer" if name == "gpus" else "number", optional=name != "gpus") for name in FIGURES]
        costs = [Column(f"{name}_cost", "number", optional=True) for name in COSTS] if self._has_costs else []
        self.columns = (
            Column("start_time", "text"),
            Column("end_time", "text"),
            *([Column("day", "text")] if answer.per == "day" else []),
            *(Column(name, "text") for name in groups),
            *figures,
            *costs,
            *([Column("currency", "text")] if costs else []),
            *([Column("co2_grams", "number")] if self._has_co2 else []),
        )

    def parts(self) -> Iterator[UsageRows]:
        """The rows of the answer."""
        data = self._answer.data
        for start in range(0, len(data), PART_ROWS):
            yield UsageRows([self._row(row) for row in data[start : start + PART_ROWS]])

    def _row(self, row: UsageRowAnswer) -> tuple[Any, ...]:
        answer = self._answer
        costs = row.costs
        return (
            answer.start_time,
            answer.end_time,
            *([row.day] if answer.per == "day" else []),
            *(getattr(row.group, name) for name in self._groups),
            *(getattr(row, name) for name in FIGURES),
            *([*(getattr(costs, name) for name in COSTS), answer.currency] if self._has_costs else []),
            *([row.co2_grams] if self._has_co2 else []),
        )

    def csv_rows(self, part: UsageRows, *, safe: bool) -> list[str]:
        """A line of CSV for each row."""
        return [csv_line(row, safe=safe) for row in part.rows]

    def json_rows(self, part: UsageRows) -> list[str]:
        """A JSON object for each row."""
        names = [column.name for column in self.columns]
        return [msgspec.json.encode(dict(zip(names, row, strict=True))).decode() for row in part.rows]

    def column_values(self, part: UsageRows) -> Iterator[ColumnValues]:
        """The values of each column."""
        for column in zip(*part.rows, strict=True):
            yield ColumnValues(column)
