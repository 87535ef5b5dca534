"""Dropping old readings from the SQLite file, a bounded piece at a time, each in a transaction of its own."""

from __future__ import annotations

import sqlite3

from stores.sqlite_schema import MINUTE_NS, Tables

CHUNK = 20_000  # readings looked at in one transaction: a few tens of milliseconds

Key = tuple[int, int, int]
BEGINNING: Key = (-(1 << 63), -(1 << 63), -(1 << 63))
_END: Key = ((1 << 63) - 1, (1 << 63) - 1, (1 << 63) - 1)

_LAST_OF_CHUNK = """
SELECT minute, series, time FROM {p}reading WHERE (minute, series, time) > (?, ?, ?) AND minute <= ?
ORDER BY minute, series, time LIMIT 1 OFFSET ?
"""
_CHUNK = "(minute, series, time) > (?, ?, ?) AND (minute, series, time) <= (?, ?, ?) AND minute <= ? AND time < ?"
_COUNT_CHUNK = "SELECT count(*), minute FROM {p}reading WHERE {chunk} GROUP BY minute".replace("{chunk}", _CHUNK)
_DELETE_CHUNK = "DELETE FROM {p}reading WHERE {chunk}".replace("{chunk}", _CHUNK)

_EMPTY_SERIES = """
DELETE FROM {p}series WHERE last_minute < ?1 OR (last_minute = ?1 AND NOT EXISTS (
    SELECT 1 FROM {p}reading WHERE minute = ?1 AND series = {p}series.id))
"""


def drop_chunk(connection: sqlite3.Connection, tables: Tables, oldest_ns: int, after: Key) -> tuple[int, Key | None]:
    """Look at the next readings after a key and drop those older than ``oldest_ns``; returns how many went and where
    the next piece begins, None at the end. Call it in a transaction.
    """
    cut = oldest_ns // MINUTE_NS
    last = connection.execute(tables.sql(_LAST_OF_CHUNK), (*after, cut, CHUNK - 1)).fetchone()
    bounds = (*after, *(last or _END), cut, oldest_ns)
    per_minute = connection.execute(tables.sql(_COUNT_CHUNK), bounds).fetchall()
    connection.execute(tables.sql(_DELETE_CHUNK), bounds)
    connection.executemany(tables.sql("UPDATE {p}minute SET readings = readings - ? WHERE minute = ?"), per_minute)
    return sum(count for count, _ in per_minute), last


def tidy(connection: sqlite3.Connection, oldest_ns: int) -> None:
    """After the last piece: drop minutes, series and identities that hold nothing any more. Call it in a transaction."""
    cut = oldest_ns // MINUTE_NS
    for tables in Tables:
        late = connection.execute(tables.sql("SELECT 1 FROM {p}reading WHERE minute < ? LIMIT 1"), (cut,)).fetchone()
        if late is not None:
            # Somebody wrote old readings between the pieces: they still need their names. The next time will do.
            return
    gone = 0
    for tables in Tables:
        connection.execute(tables.sql("DELETE FROM {p}minute WHERE minute <= ? AND readings = 0"), (cut,))
        connection.execute(
            tables.sql(
                "UPDATE {p}minute SET oldest_ns = (SELECT min(time) FROM {p}reading WHERE minute = ?1) WHERE minute = ?1"
            ),
            (cut,),
        )
        gone += connection.execute(tables.sql(_EMPTY_SERIES), (cut,)).rowcount
    gone += connection.execute("DELETE FROM identity WHERE last_minute < ?", (cut,)).rowcount
    if gone:
        connection.execute("UPDATE state SET generation = generation + 1")
