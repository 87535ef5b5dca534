"""Reading any number of rows from the readings' SQLite file in flat memory: some minutes, or a part of one, at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice

import numpy as np

from stores.base import ReadingsQuery, RowBatch, SeriesLabels
from stores.paging import ROWS_AT_ONCE
from stores.sqlite_reader import Names, Piece, Reader, Scope
from stores.sqlite_schema import MINUTE_NS

_MINUTES_AT_ONCE = 1000
# A piece that turns out to hold more than this is read in halves.
_MOST_ROWS = 2 * ROWS_AT_ONCE

Reading = Callable[[], AbstractContextManager[sqlite3.Connection]]


def stream(reading: Reading, names: Names, query: ReadingsQuery) -> Iterator[RowBatch]:
    """The rows of a query in its order, but for its limit, offset and cursor (only what lies before its time is left out).

    ``reading`` gives a connection with a read transaction; none is held while a portion is with the caller.
    """
    with reading() as connection:
        scope = Reader(connection, names).scope(_from_cursor(query))
    while scope is not None and scope.start < scope.end:
        with reading() as connection:
            minutes = list(islice(Reader(connection, names).minutes(scope, query.newest_first), _MINUTES_AT_ONCE))
        if not minutes:
            return
        for piece, expected in _pieces(minutes, scope):
            yield from _walk(reading, names, _inside(scope, piece), piece, expected, query.newest_first)
        if query.newest_first:
            scope = replace(scope, end=minutes[-1][0] * MINUTE_NS)
        else:
            scope = replace(scope, start=(minutes[-1][0] + 1) * MINUTE_NS)


def _from_cursor(query: ReadingsQuery) -> ReadingsQuery:
    if query.after is None:
        return query
    time_ns = query.after.time_ns
    if query.newest_first:
        end = time_ns + 1 if query.end_ns is None else min(query.end_ns, time_ns + 1)
        return replace(query, end_ns=end, after=None)
    return replace(query, start_ns=time_ns if query.start_ns is None else max(query.start_ns, time_ns), after=None)


def _pieces(minutes: list[tuple[int, int]], scope: Scope) -> Iterator[tuple[Piece, float]]:
    """Minutes put together to about as many rows as are read at once; a full minute stays alone."""
    low, high, held = minutes[0][0], minutes[0][0], 0
    for minute, readings in minutes:
        if held and (held + readings) * scope.share_of_readings > ROWS_AT_ONCE:
            yield Piece(low, high, held), held * scope.share_of_readings
            low, high, held = minute, minute, 0
        low, high, held = min(low, minute), max(high, minute), held + readings
    yield Piece(low, high, held), held * scope.share_of_readings


def _inside(scope: Scope, piece: Piece) -> Scope:
    return replace(
        scope, start=max(scope.start, piece.low * MINUTE_NS), end=min(scope.end, (piece.high + 1) * MINUTE_NS)
    )


def _walk(
    reading: Reading, names: Names, scope: Scope, piece: Piece, expected: float, newest_first: bool
) -> Iterator[RowBatch]:
    """The rows of a piece. What is too much for one portion is cut by time, and again until it fits."""
    # (start, end, rows expected) that are still to be read, the next one last.
    waiting = [(scope.start, scope.end, expected)]
    while waiting:
        start, end, expected = waiting.pop()
        parts = 1
        rows = []
        with reading() as connection:
            reader = Reader(connection, names)
            if expected > _MOST_ROWS:
                parts = int(expected // ROWS_AT_ONCE) + 1
            else:
                # A part of a minute is sought in each series: passing over the whole minute for each part would cost more.
                if not scope.seeks and end - start < MINUTE_NS:
                    scope = replace(scope, series=scope.series or reader.all_series(), seeks=True)
                at_once = piece._replace(low=start // MINUTE_NS, high=(end - 1) // MINUTE_NS)
                rows = reader.fetch(replace(scope, start=start, end=end), at_once, _MOST_ROWS + 1)
                parts = 2 if len(rows) > _MOST_ROWS else 1
            parts = min(parts, end - start)
            if parts == 1:
                if len(rows) > _MOST_ROWS or expected > _MOST_ROWS:  # all of one nanosecond: there is nothing to cut
                    rows = reader.fetch(replace(scope, start=start, end=end), piece)
                portion = _portion(reader, rows, newest_first)
        if parts == 1:
            if len(portion):
                yield portion
            continue
        cuts = [start + (end - start) * part // parts for part in range(parts + 1)]
        cut = list(zip(cuts, cuts[1:], [min(expected / parts, _MOST_ROWS)] * parts, strict=False))
        waiting += cut if newest_first else cut[::-1]


def _portion(reader: Reader, rows: list[tuple[int, int, float, int]], newest_first: bool) -> RowBatch:
    if not rows:
        return RowBatch([], [], [], [])
    times, series, values, identities = (np.array(column) for column in zip(*rows, strict=True))
    names = reader.names(set(series.tolist()))
    distinct, of_distinct = np.unique(series, return_inverse=True)
    by_name = sorted(range(len(distinct)), key=lambda at: names[int(distinct[at])])
    rank = np.empty(len(distinct), np.int64)
    rank[by_name] = np.arange(len(distinct))
    # ~ turns the order round without leaving 64 bits.
    order = np.lexsort((rank[of_distinct], ~times if newest_first else times))
    known, of_known = np.unique(identities, return_inverse=True)
    pairs, places = np.unique(of_distinct * len(known) + of_known, return_inverse=True)
    origins: list[SeriesLabels] = reader.origins(
        [(int(distinct[pair // len(known)]), int(known[pair % len(known)])) for pair in pairs.tolist()]
    )
    return RowBatch(times[order].tolist(), values[order].tolist(), places[order].tolist(), origins)
