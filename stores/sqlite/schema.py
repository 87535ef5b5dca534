"""The tables of the readings' SQLite file, and the check of a file's kind and version.

Readings are kept in chunks. A *stripe* is 64 GPUs whose ids follow each other; a *block* is five minutes. Of each stripe
and block there is one row with its points (GPU, time and description of each), and one row for each metric with the
values at those points. A question about one metric reads the points and that metric's values, nothing else.

    state       one row: counters, and the ids to give out next
    metric      names of metrics
    source      GPUs (ids from 0 up) and shares of GPUs (ids from -1 down, so that no stripe holds both)
    identity    each distinct description of a source (host, index, pod, …), and the blocks in which it occurs
    stripe      the newest time of each series of a stripe, and which of its blocks have rows in ``recent``
    block       the points of a stripe in a block
    chunk       the values of one metric at those points
    recent      points as they were written, until they are merged into ``block`` and ``chunk``

A write adds its points to ``recent``, one row for each stripe and block. A reading that is newer than its series' newest must
be new, so the counters need no look at the stored values. Other readings (late, or written before) are merged into their
block at once. Ids are never reused, so processes may cache them. ``state.generation`` grows when retention deletes ids.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from stores.base import StoreError

BLOCK_NS = 300_000_000_000
LAST_NS = (1 << 63) - 1
NEVER = -(1 << 63)
STRIPE_BITS = 6
STRIPE = 1 << STRIPE_BITS


class Schema(NamedTuple):
    """The tables of a kind of file. ``application_id`` is in the file's header: it says that the file is of this kind."""

    application_id: int
    version: int
    tables: str


_TABLES = """
CREATE TABLE state (
    generation INTEGER NOT NULL,
    next_source INTEGER NOT NULL,
    next_share INTEGER NOT NULL,
    readings INTEGER NOT NULL,
    shares INTEGER NOT NULL,
    series INTEGER NOT NULL,
    oldest INTEGER,
    newest INTEGER
);
INSERT INTO state VALUES (1, 0, -1, 0, 0, 0, NULL, NULL);
CREATE TABLE metric (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE source (
    id INTEGER PRIMARY KEY,
    gpu TEXT NOT NULL,
    namespace TEXT NOT NULL,
    pod TEXT NOT NULL,
    container TEXT NOT NULL,
    share INTEGER NOT NULL,
    UNIQUE (gpu, share, namespace, pod, container)
);
CREATE TABLE identity (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source INTEGER NOT NULL,
    uuid TEXT NOT NULL,
    mig_id TEXT NOT NULL,
    gpu_id INTEGER,
    device TEXT NOT NULL,
    model_name TEXT NOT NULL,
    hostname TEXT NOT NULL,
    container TEXT NOT NULL,
    pod TEXT NOT NULL,
    namespace TEXT NOT NULL,
    first_block INTEGER NOT NULL,
    last_block INTEGER NOT NULL
);
CREATE INDEX identity_by_source ON identity (source, pod, namespace, container, hostname, gpu_id, device, model_name);
CREATE INDEX identity_by_uuid ON identity (uuid);
CREATE INDEX identity_by_host ON identity (hostname);
CREATE INDEX identity_by_pod ON identity (pod, namespace);
CREATE TABLE stripe (id INTEGER PRIMARY KEY, metrics BLOB NOT NULL, open BLOB NOT NULL, newest BLOB NOT NULL);
CREATE TABLE block (
    block INTEGER NOT NULL,
    stripe INTEGER NOT NULL,
    points INTEGER NOT NULL,
    readings INTEGER NOT NULL,
    oldest INTEGER NOT NULL,
    newest INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE UNIQUE INDEX block_by_block ON block (block, stripe, points, readings);
CREATE INDEX block_by_stripe ON block (stripe, block, points);
CREATE TABLE chunk (
    block INTEGER NOT NULL,
    stripe INTEGER NOT NULL,
    metric INTEGER NOT NULL,
    readings INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (block, stripe, metric)
);
CREATE TABLE recent (
    id INTEGER PRIMARY KEY,
    block INTEGER NOT NULL,
    stripe INTEGER NOT NULL,
    points INTEGER NOT NULL,
    readings INTEGER NOT NULL,
    oldest INTEGER NOT NULL,
    newest INTEGER NOT NULL,
    data BLOB NOT NULL,
    metrics BLOB NOT NULL,
    numbers BLOB NOT NULL
);
CREATE INDEX recent_by_block ON recent (block, stripe, points, oldest, newest);
CREATE INDEX recent_by_stripe ON recent (stripe, block)
"""

READINGS = Schema(0x47505554, 2, _TABLES)  # "GPUT"


def create_or_check(connection: sqlite3.Connection, schema: Schema) -> None:
    """Create the tables in an empty file, or check the kind and version of the file. Raises StoreError."""
    # In one transaction, so that what another process commits meanwhile is seen whole or not at all.
    with transaction(connection, "BEGIN"):
        if _is_current(connection, schema):
            return
    # Two processes may find the file empty at once: the second waits here, and then finds the tables.
    with transaction(connection):
        if not _is_current(connection, schema):
            # executescript() would commit first, and so give up the lock that this waited for.
            for statement in schema.tables.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {schema.application_id}")
            connection.execute(f"PRAGMA user_version = {schema.version}")


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """Commits at the end of the block; rolls back after an error."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _is_current(connection: sqlite3.Connection, schema: Schema) -> bool:
    # Whose file it is first, then its version: so that a newer version is not taken for somebody else's file.
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application_id != schema.application_id:
        if application_id or version or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StoreError("is an SQLite file of something else: name another file")
        return False
    if version != schema.version:
        age = "a newer" if version > schema.version else "an older"
        raise StoreError(
            f"has schema version {version}, made by {age} release: this one reads version {schema.version}:"
            " move the file away, or name another (SQLITE_PATH)"
        )
    return True
