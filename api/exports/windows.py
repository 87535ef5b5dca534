"""Windows as rows of an export: one row for each window of each group, with the question's metric, aggregate and unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from api.exports.formats import Column, ColumnValues, csv_line, number_texts, time_texts
from readings.catalogue import unit_of
from stores.aggregate.buckets import Buckets
from stores.base import GroupSeries, SeriesQuery

# The names of a group's parts, in the order of stores.base.GroupSeries.group.
_NAMES: dict[str | None, tuple[str, ...]] = {None: (), "pod": ("namespace", "pod")}


def group_names(by: str | None) -> tuple[str, ...]:
    """The names of a group's parts: ``namespace`` and ``pod`` by pod, else ``by`` itself."""
    return _NAMES.get(by, (str(by),))


def unit_of_answer(query: SeriesQuery) -> str:
    """The unit of the values: the metric's, or ``count``."""
    return "count" if query.aggregate == "count" else unit_of(query.metric_name)


@dataclass(frozen=True, slots=True)
class WindowRows:
    """The windows of one group: the time at which each begins (ns) and its value. All rows share ``texts``."""

    times: list[int]
    values: list[float | None]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.times)


class WindowLayout:
    """Lays out the windows of one question (see api.exports.formats.Layout). A window without readings has no value."""

    def __init__(self, query: SeriesQuery) -> None:
        self._query = query
        self._texts = (*group_names(query.by), "metric", "agg", "unit")
        self.columns = (
            Column("timestamp", "time"),
            *(Column(name, "text") for name in self._texts),
            Column("value", "number", optional=True),
        )

    def parts(self, found: Sequence[GroupSeries]) -> Iterator[WindowRows]:
        """The groups of the answer, one part each."""
        query = self._query
        times = list(Buckets(query.start_ns, query.end_ns, query.every_ns).times())
        asked = (query.metric_name, query.aggregate, unit_of_answer(query))
        for each in found:
            yield WindowRows(times, list(each.values), (*each.group, *asked))

    def csv_rows(self, part: WindowRows, *, safe: bool) -> list[str]:
        """A line of CSV for each window."""
        middle = csv_line(part.texts, safe=safe)[:-2]
        return [f"{time},{middle},{value}\r\n" for time, value in zip(*_texts_of(part), strict=True)]

    def json_rows(self, part: WindowRows) -> list[str]:
        """A JSON object for each window."""
        middle = msgspec.json.encode(dict(zip(self._texts, part.texts, strict=True)))[1:-1].decode()
        return [
            f'{{"timestamp":"{time}",{middle},"value":{value or "null"}}}'
            for time, value in zip(*_texts_of(part), strict=True)
        ]

    def column_values(self, part: WindowRows) -> Iterator[ColumnValues]:
        """The values of each column."""
        yield ColumnValues(part.times)
        same = [0] * len(part)
        for text in part.texts:
            yield ColumnValues([text], same)
        yield ColumnValues(part.values)


def _texts_of(part: WindowRows) -> tuple[list[str], list[str]]:
    """Times and values as text. A missing value is empty."""
    present = iter(number_texts([value for value in part.values if value is not None]))
    return time_texts(part.times), ["" if value is None else next(present) for value in part.values]
