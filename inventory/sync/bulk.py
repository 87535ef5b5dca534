"""Reads and writes many rows with few statements."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

from django.db import connections, models, router
from django.db.models.functions import Collate

M = TypeVar("M", bound=models.Model)

# Databases limit the parameters of a statement: SQLite usually to 32,766.
_MOST_KEYS = 10_000
_BYTE_ORDER = {"sqlite": "BINARY", "postgresql": "C"}


def fetch(queryset: models.QuerySet[M], field: str, keys: Sequence[object]) -> Iterator[M]:
    """The rows of ``queryset`` whose ``field`` is one of ``keys``."""
    for start in range(0, len(keys), _MOST_KEYS):
        yield from queryset.filter(**{f"{field}__in": keys[start : start + _MOST_KEYS]})


def fetch_locked(manager: models.Manager[M] | models.QuerySet[M], field: str, keys: Collection[str]) -> dict[str, M]:
    """The rows by that text field, locked in its order, so that two writers never deadlock.

    The order is that of the bytes, here and in the database, whatever the database's own collation.
    """
    vendor = connections[router.db_for_write(manager.model)].vendor
    locking = manager.order_by(Collate(field, _BYTE_ORDER[vendor])).select_for_update()
    return {getattr(row, field): row for row in fetch(locking, field, sorted(keys))}


def make_missing(
    manager: models.Manager[M], field: str, keys: Collection[str], make: Callable[[str], M]
) -> Sequence[str]:
    """Creates a row for each key that has none and returns those keys. Call it before locking any row of the table.

    Another writer may be creating the same rows, and one then waits for the other. Both therefore go in one order, and
    neither holds a lock on a row that the other wants to create.
    """
    missing = sorted(set(keys) - {getattr(row, field) for row in fetch(manager.only(field), field, list(keys))})
    manager.bulk_create([make(key) for key in missing], ignore_conflicts=True)
    return missing


# Any number that no other program on the database takes.
_LOCK = 0x6770_7569_6E76


def lock_inventory() -> None:
    """Waits until no other writer is in a transaction that has called this, until the end of ours.

    SQLite needs nothing: a transaction there is the only writer from its start.
    """
    connection = connections[router.db_for_write(models.Model)]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])


def update_rows(rows: Sequence[M], fields: Collection[str]) -> None:
    """Writes these fields of existing rows of one model, with one prepared statement run for each row.

    Django's bulk_update builds a CASE per row and field, and takes seconds where this takes milliseconds.
    """
    if not rows:
        return
    meta = rows[0]._meta
    connection = connections[router.db_for_write(type(rows[0]))]
    quote = connection.ops.quote_name
    key = next(field for field in meta.concrete_fields if field.primary_key)
    written = [field for field in meta.concrete_fields if field.name in fields]
    assignments = ", ".join(f"{quote(str(field.column))} = %s" for field in written)
    statement = f"UPDATE {quote(meta.db_table)} SET {assignments} WHERE {quote(str(key.column))} = %s"  # noqa: S608 - names are the models'
    written.append(key)
    with connection.cursor() as cursor:
        cursor.executemany(
            statement,
            [[field.get_db_prep_save(getattr(row, field.attname), connection) for field in written] for row in rows],
        )
