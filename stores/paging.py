"""What every store's stream does with its portions: begin after a cursor, leave out an offset, stop at a limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stores.base import ReadingsQuery, Row, RowBatch, SeriesLabels

# Rows read at once. Some MB while they are being worked on, and enough that what is done once for each portion is little.
ROWS_AT_ONCE = 20_000


def bounded(portions: Iterator[RowBatch], query: ReadingsQuery) -> Iterator[RowBatch]:
    """The rows of ``portions`` (in the query's order, perhaps beginning before its cursor) that the query means."""
    skip, wanted = query.offset, query.limit
    is_beyond = query.after is None
    for portion in portions:
        rows = portion
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


def joined(portions: Iterator[RowBatch]) -> RowBatch:
    """All of them in one."""
    whole: RowBatch | None = None
    for portion in portions:
        if whole is None:
            whole = portion
            continue
        known = len(whole.origins)
        whole = RowBatch(
            whole.times + portion.times,
            whole.values + portion.values,
            whole.places + [known + place for place in portion.places],
            whole.origins + portion.origins,
        )
    return whole or RowBatch([], [], [], [])


def as_portion(rows: Sequence[Row]) -> RowBatch:
    """Rows as columns."""
    known: dict[SeriesLabels, int] = {}
    places = [known.setdefault(SeriesLabels(row[1], *row[3:]), len(known)) for row in rows]
    return RowBatch([row[0] for row in rows], [row[2] for row in rows], places, list(known))


def _after(portion: RowBatch, query: ReadingsQuery) -> RowBatch:
    after = query.after
    if after is None:
        return portion
    sign = -1 if query.newest_first else 1
    beyond = (sign * after.time_ns, after.gpu, after.metric_name)
    for row, time_ns in enumerate(portion.times):
        # Most rows of a portion are told by their time alone.
        if sign * time_ns < beyond[0]:
            continue
        time, gpu, metric = portion.position(row)
        if (sign * time, gpu, metric) > beyond:
            return portion.cut(row, None)
    return portion.cut(len(portion), None)
