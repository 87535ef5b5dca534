"""Windows as exports write them: a row for each window of each group, with what was asked for in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from api.exports.readings import csv_line, number_texts, time_texts
from api.views.query import group_names, unit_of_answer
from stores.aggregate.buckets import Buckets
from stores.base import GroupSeries, SeriesQuery


@dataclass(frozen=True, slots=True)
class Part:
    """The windows of one group: when each begins (ns) and its value; ``texts`` are the same in all its rows."""

    times: list[int]
    values: list[float | None]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.times)


class Windows:
    """How exports write the windows of one question (see api.exports.formats.Layout). A window without a value has none."""

    def __init__(self, query: SeriesQuery) -> None:
        self._query = query
        self._texts = (*group_names(query.by), "metric", "agg", "unit")
        self.columns = ("timestamp", *self._texts, "value")

    def parts(self, found: Sequence[GroupSeries]) -> Iterator[Part]:
        """The groups of the answer."""
        query = self._query
        times = list(Buckets(query.start_ns, query.end_ns, query.every_ns).times())
        asked = (query.metric_name, query.aggregate, unit_of_answer(query))
        for each in found:
            yield Part(times, list(each.values), (*each.group, *asked))

    def csv_rows(self, part: Part, *, safe: bool) -> list[str]:
        """Lines with these columns."""
        middle = csv_line(part.texts, safe=safe)[:-2]
        return [f"{time},{middle},{value}\r\n" for time, value in zip(*_texts_of(part), strict=True)]

    def json_rows(self, part: Part) -> list[str]:
        """An object for each window."""
        middle = msgspec.json.encode(dict(zip(self._texts, part.texts, strict=True)))[1:-1].decode()
        return [
            f'{{"timestamp":"{time}",{middle},"value":{value or "null"}}}'
            for time, value in zip(*_texts_of(part), strict=True)
        ]

    def parquet_schema(self) -> Any:
        """The columns with their types."""
        from api.exports.formats import windows_schema

        return windows_schema(self._texts)

    def parquet_table(self, parts: Sequence[Part]) -> Any:
        """All rows of some parts."""
        from api.exports.formats import windows_table

        return windows_table(parts, self.parquet_schema())


def _texts_of(part: Part) -> tuple[list[str], list[str]]:
    """Times, and values; a missing value is empty."""
    known = iter(number_texts([value for value in part.values if value is not None]))
    return time_texts(part.times), ["" if value is None else next(known) for value in part.values]
