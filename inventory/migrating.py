"""Brings Django's database up to date when a service starts, one process at a time.

The embedded SQLite database belongs to the services, so the first one to start migrates it. PostgreSQL may be shared with an
older version that still runs, so only ``manage.py migrate`` changes it, and the services wait for that.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from django.core.management import call_command
from django.core.management.commands import migrate
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor

logger = logging.getLogger(__name__)

HOW = "run manage.py migrate"
CHECK_SECONDS = 2.0
REMIND_SECONDS = 60.0
# The key of PostgreSQL's advisory lock: 63 bits that no other program is likely to choose.
_LOCK_KEY = int.from_bytes(hashlib.sha256(b"gpu-telemetry migrate").digest()[:8], "big") >> 1


def is_embedded(alias: str = DEFAULT_DB_ALIAS) -> bool:
    """Whether the database is a SQLite file of this machine."""
    return connections[alias].vendor == "sqlite"


def is_migrated(connection: BaseDatabaseWrapper | None = None) -> bool:
    """Whether every migration of this version is applied. Raises DatabaseError."""
    executor = MigrationExecutor(connection or connections[DEFAULT_DB_ALIAS])
    return not executor.migration_plan(executor.loader.graph.leaf_nodes())


def migrate_embedded() -> None:
    """Migrates a SQLite database that needs it; leaves PostgreSQL alone. Raises DatabaseError.

    A database that is up to date is only read, so a full disk or a read-only folder does not stop a service here.
    """
    if not is_embedded():
        return
    connection = connections[DEFAULT_DB_ALIAS]
    try:
        with migration_lock(connection):
            if not is_migrated():
                call_command(migrate.Command(), verbosity=0, interactive=False)
    finally:
        connection.close()


async def wait_until_migrated(stop: asyncio.Event) -> bool:
    """Migrates the embedded database, or waits until somebody has migrated PostgreSQL. Returns False if ``stop`` is set first.

    Raises DatabaseError when the embedded database cannot be migrated. A PostgreSQL that does not answer is waited for as well.
    """
    if is_embedded():
        await asyncio.to_thread(migrate_embedded)
        return not stop.is_set()
    loop = asyncio.get_running_loop()
    remind_at, told = loop.time(), ""
    while not stop.is_set():
        problem = await asyncio.to_thread(_problem)
        if not problem:
            return True
        if problem != told or loop.time() >= remind_at:
            logger.warning("%s; waiting for it", problem)
            remind_at, told = loop.time() + REMIND_SECONDS, problem
        try:
            await asyncio.wait_for(stop.wait(), CHECK_SECONDS)
        except TimeoutError:
            continue
    return False


def _problem() -> str:
    """Why the database cannot be used yet, in one line; empty when it can."""
    connection = _unpooled_connection()
    try:
        return "" if is_migrated(connection) else f"the database lacks migrations of this version: {HOW}"
    except DatabaseError as error:
        return f"the database does not answer: {' '.join(str(error).split())}"
    finally:
        connection.close()


def _unpooled_connection() -> BaseDatabaseWrapper:
    """A connection of its own. A pool would say that it timed out, and log the cause at each try."""
    connection = connections.create_connection(DEFAULT_DB_ALIAS)
    options = {key: value for key, value in connection.settings_dict["OPTIONS"].items() if key != "pool"}
    connection.settings_dict = {**connection.settings_dict, "OPTIONS": options}
    return connection


@contextmanager
def migration_lock(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Lets one process at a time migrate this database. The lock ends with its process."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK_KEY])
            try:
                yield
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK_KEY])
        return
    name = str(connection.settings_dict["NAME"])
    if connection.vendor != "sqlite" or ":memory:" in name or "mode=memory" in name:
        yield
        return
    # SQLite's own lock lasts for one transaction, and a migration is several. The file stays, since another process may
    # wait for it.
    with ExitStack() as stack:
        with suppress(OSError):  # a read-only folder: nobody can migrate
            fcntl.flock(stack.enter_context(Path(f"{name}.migrating").open("ab")), fcntl.LOCK_EX)
        yield
