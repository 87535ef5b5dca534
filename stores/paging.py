"""Applies a query's cursor, offset and limit to batches of rows, for every store."""

from __future__ import annotations

from collections.abc import Iterator

from stores.base import ReadingsQuery, RowBatch

# Rows in a batch: some MB while they are processed, and enough to make the cost per batch small.
ROWS_AT_ONCE = 20_000


def bounded(batches: Iterator[RowBatch], query: ReadingsQuery) -> Iterator[RowBatch]:
    """The rows that the query selects from ``batches``, which are in its order and may begin before its cursor."""
    skip, wanted = query.offset, query.limit
    is_beyond = query.after is None
    for batch in batches:
        rows = batch
        if not is_beyond:
            rows = _after(rows, query)
            is_beyond = len(rows) > 0
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


def _after(batch: RowBatch, query: ReadingsQuery) -> RowBatch:
    after = query.after
    if after is None:
        return batch
    sign = -1 if query.newest_first else 1
    beyond = (sign * after.time_ns, after.gpu, after.metric_name)
    for row, time_ns in enumerate(batch.times):
        # For most rows the time alone decides.
        if sign * time_ns < beyond[0]:
            continue
        time, gpu, metric = batch.position(row)
        if (sign * time, gpu, metric) > beyond:
            return batch.cut(row, None)
    return batch.cut(len(batch), None)
