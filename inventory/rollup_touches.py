"""Which windows of the roll-ups must be made anew, because raw readings were written into them.

A collector records the minutes before it commits the offset of their readings. Who rolls up reads the touches first, then the raw
readings, and deletes a touch only if it is still the same: one that was written meanwhile stays.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable
from operator import attrgetter
from typing import NamedTuple

from django.db import connections, router, transaction

from inventory.models import RollupTouch

MINUTES, HOURS = "1m", "1h"
_HOUR_NS = 3_600 * 1_000_000_000


class WindowTouch(NamedTuple):
    """A row: ``writer`` wrote into the window of ``tier`` that begins at ``start_ns``."""

    tier: str
    start_ns: int
    writer: str
    version: int


def touch(store: str, tier: str, starts_ns: Iterable[int], writer: str) -> None:
    """Record that ``writer`` has written into these windows. Raises django.db.Error."""
    version = _new_version()
    _touch([(store, tier, start_ns, writer, version) for start_ns in sorted(starts_ns)])


def touches(store: str) -> list[WindowTouch]:
    """All that wait, in order of time. One query."""
    rows = RollupTouch.objects.filter(store=store).order_by("start_ns", "writer")
    return [WindowTouch(*row) for row in rows.values_list("tier", "start_ns", "writer", "version")]


def settle(store: str, done: Collection[WindowTouch]) -> int:
    """Delete these touches, except those that were touched again; returns how many are gone. Call it in a transaction.

    The hours of minutes that are rolled up are touched by the same writers, whether the minute was touched again or not.
    """
    version = _new_version()
    hours = {(each.start_ns - each.start_ns % _HOUR_NS, each.writer) for each in done if each.tier == MINUTES}
    _touch([(store, HOURS, start_ns, writer, version) for start_ns, writer in sorted(hours)])
    with connections[router.db_for_write(RollupTouch)].cursor() as cursor:
        gone = 0
        # In the order in which collectors write them, so that two never wait for each other.
        for each in sorted(done, key=attrgetter("start_ns", "writer")):
            cursor.execute(
                "DELETE FROM inventory_rolluptouch "
                "WHERE store = %s AND tier = %s AND start_ns = %s AND writer = %s AND version = %s",
                [store, *each],
            )
            gone += cursor.rowcount
    return gone


def _touch(rows: list[tuple[str, str, int, str, int]]) -> None:
    if not rows:
        return
    with transaction.atomic(), connections[router.db_for_write(RollupTouch)].cursor() as cursor:
        cursor.executemany(
            "INSERT INTO inventory_rolluptouch (store, tier, start_ns, writer, version) VALUES (%s, %s, %s, %s, %s) "
            "ON CONFLICT (store, tier, start_ns, writer) DO UPDATE SET version = excluded.version",
            rows,
        )


def _new_version() -> int:
    # At random, since a row that was deleted and made again must not look like the one before.
    return secrets.randbits(62)
