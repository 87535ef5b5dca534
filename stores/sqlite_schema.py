"""The readings' SQLite file: its tables, and the check that a file is one of ours and of a version known here.

    series      what a reading is of: a metric of a GPU (and, for shares, whose share)
    identity    what described the GPU when it was taken: host, index, pod, … ; each distinct description once
    reading     the readings themselves, keyed (minute, series, time)
    minute      which minutes hold readings, how many, and the first and last time: counts without a scan
    share_…     the same three for shares, which are never mixed with the readings

A reading's key is its series and time; the minute (which follows from the time) only goes in front of it. A fleet
reports every series once per interval: with the series in front, each flush would touch as many pages as there are
series (measured at 256 GPUs x 10 metrics: 64,000 readings/s and 7 kB written for each). With the minute in front a
flush stays within that minute's few pages (500,000 readings/s, 280 B), the newest readings of a fleet lie together,
and retention takes the front off one B-tree. A series is then read with one seek per minute.

``first_minute`` and ``last_minute`` bound where a series or identity has readings, so that a search starts and ends
there. Ids are never used twice: readers keep id -> names for as long as they like. ``state.generation`` grows when
retention takes ids away: writers then forget the ids they know.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from stores.base import StoreError

APPLICATION_ID = 0x47505554  # "GPUT", in the file's header: says that it is ours
VERSION = 1
MINUTE_NS = 60_000_000_000

_TABLES = """
CREATE TABLE {p}series (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    gpu TEXT NOT NULL,
    metric TEXT NOT NULL,
    namespace TEXT NOT NULL,
    pod TEXT NOT NULL,
    container TEXT NOT NULL,
    first_minute INTEGER NOT NULL,
    last_minute INTEGER NOT NULL,
    UNIQUE (gpu, metric, namespace, pod, container)
);
CREATE INDEX {p}series_by_metric ON {p}series (metric);
CREATE TABLE {p}reading (
    minute INTEGER NOT NULL,
    series INTEGER NOT NULL,
    time INTEGER NOT NULL,
    value REAL NOT NULL CHECK (value BETWEEN -1.7976931348623157e308 AND 1.7976931348623157e308),
    identity INTEGER NOT NULL,
    PRIMARY KEY (minute, series, time)
) WITHOUT ROWID;
CREATE TABLE {p}minute (
    minute INTEGER PRIMARY KEY,
    readings INTEGER NOT NULL,
    oldest_ns INTEGER NOT NULL,
    newest_ns INTEGER NOT NULL
);
"""

_SHARED_TABLES = """
CREATE TABLE identity (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    gpu TEXT NOT NULL,
    uuid TEXT NOT NULL,
    mig_id TEXT NOT NULL,
    gpu_id INTEGER,
    device TEXT NOT NULL,
    model_name TEXT NOT NULL,
    hostname TEXT NOT NULL,
    container TEXT NOT NULL,
    pod TEXT NOT NULL,
    namespace TEXT NOT NULL,
    first_minute INTEGER NOT NULL,
    last_minute INTEGER NOT NULL
);
CREATE INDEX identity_by_gpu ON identity (gpu);
CREATE INDEX identity_by_host ON identity (hostname);
CREATE INDEX identity_by_pod ON identity (pod, namespace);
CREATE TABLE state (generation INTEGER NOT NULL);
INSERT INTO state VALUES (1);
"""


class Tables(Enum):
    """One of the two sets of tables. The value is what their names begin with."""

    READINGS = ""
    SHARES = "share_"

    def sql(self, template: str) -> str:
        """A statement for these tables: ``{p}`` stands for the beginning of their names."""
        return template.replace("{p}", self.value)


def create_or_check(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty file; in another, check that it is ours and of this version. Raises StoreError."""
    # In one transaction, so that what another process commits meanwhile is seen whole or not at all.
    with _transaction(connection, "BEGIN"):
        if _is_current(connection):
            return
    # Two processes may find the file empty at once: the second waits here, and then finds the tables.
    with _transaction(connection, "BEGIN IMMEDIATE"):
        if not _is_current(connection):
            for tables in Tables:
                _execute_all(connection, tables.sql(_TABLES))
            _execute_all(connection, _SHARED_TABLES)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _is_current(connection: sqlite3.Connection) -> bool:
    # Whose file it is first, then its version: so that a newer version is not taken for somebody else's file.
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application_id != APPLICATION_ID:
        if application_id or version or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StoreError("is an SQLite file of something else: name another file")
        return False
    if version != VERSION:
        age = "a newer" if version > VERSION else "an older"
        raise StoreError(f"has schema version {version}, made by {age} release: this one reads version {VERSION}")
    return True


def _execute_all(connection: sqlite3.Connection, script: str) -> None:
    # executescript() would commit first, and so give up the lock that this waits for.
    for statement in script.split(";"):
        if statement.strip():
            connection.execute(statement)
