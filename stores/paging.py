"""Applies a query's cursor, offset and limit to batches of rows, for every store."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from stores.base import Position, ReadingsQuery, RowBatch

# Rows in a batch: some MB while they are processed, and enough to make the cost per batch small.
ROWS_AT_ONCE = 20_000


def bounded(batches: Iterator[RowBatch], query: ReadingsQuery) -> Iterator[RowBatch]:
    """The rows that the query selects from ``batches``, which are in its order and may begin before its cursor."""
    skip, wanted, after = query.offset, query.limit, query.after
    for batch in batches:
        rows = batch
        if after is not None:
            rows = _after(rows, query, after)
            after = None if len(rows) else after
        if skip:
            skip, rows = max(0, skip - len(rows)), rows.cut(skip, None)
        if wanted is not None:
            rows = rows.cut(0, wanted)
            wanted -= len(rows)
        if len(rows):
            yield rows
        if wanted == 0:
            return


def joined(batches: Iterator[RowBatch]) -> RowBatch:
    """All batches as one."""
    whole: RowBatch | None = None
    for batch in batches:
        if whole is None:
            whole = batch
            continue
        known = len(whole.origins)
        whole = RowBatch(
            whole.times + batch.times,
            whole.values + batch.values,
            whole.places + [known + place for place in batch.places],
            whole.origins + batch.origins,
        )
    return whole or RowBatch([], [], [], [])


def _after(batch: RowBatch, query: ReadingsQuery, after: Position) -> RowBatch:
    sign = -1 if query.newest_first else 1

    def key(row: int) -> tuple[int, str, str]:
        time_ns, gpu, metric_name = batch.position(row)
        return sign * time_ns, gpu, metric_name

    beyond = (sign * after.time_ns, after.gpu, after.metric_name)
    return batch.cut(bisect_right(range(len(batch)), beyond, key=key), None)
