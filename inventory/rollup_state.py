"""How far the roll-ups of a store are.

A store is named by its key (see stores.open.store_key). Every function may raise django.db.Error.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import NamedTuple

from django.db.models import F, Min
from django.db.models.functions import Greatest, Now

from inventory.leases import Lease
from inventory.models import RollupState, RollupTouch
from inventory.rollup_touches import HOURS, MINUTES

MINUTE_NS, HOUR_NS = 60 * 1_000_000_000, 3_600 * 1_000_000_000


class Complete(NamedTuple):
    """Windows that begin in [start_ns, end_ns) have all been rolled up; those that late readings touch are made again soon."""

    start_ns: int
    end_ns: int


class RollupStanding(NamedTuple):
    """For people: the ranges that are complete, how many windows wait by tier, and the oldest of them.

    ``updated`` is when windows were last made; None: never. ``is_rolling``: a process has the lease.
    """

    minutes: Complete
    hours: Complete
    waiting: dict[str, int]
    oldest_waiting_ns: int | None
    updated: datetime | None
    is_rolling: bool


def lease_of(store: str) -> Lease:
    """The lease of the process that rolls up."""
    return Lease(RollupState, "store", store)


def open_state(store: str, newest_ns: int | None) -> None:
    """Make the row, if there is none. Touches are recorded from now on: what begins up to ``newest_ns`` may have been written before."""
    first_ns = 0 if newest_ns is None else newest_ns + 1
    minutes_from_ns, hours_from_ns = -(-first_ns // MINUTE_NS) * MINUTE_NS, -(-first_ns // HOUR_NS) * HOUR_NS
    RollupState.objects.get_or_create(
        store=store,
        defaults={
            "minutes_from_ns": minutes_from_ns,
            "minutes_until_ns": minutes_from_ns,
            "hours_from_ns": hours_from_ns,
            "hours_until_ns": hours_from_ns,
            "newest_ns": first_ns - first_ns % MINUTE_NS,
        },
    )


def read_state(store: str) -> RollupState | None:
    """The row. One query."""
    return RollupState.objects.filter(store=store).first()


def complete(store: str, tier: str) -> Complete | None:
    """The range of the tier (``1m`` or ``1h``) that is complete; None if there is none. One query."""
    state = read_state(store)
    if state is None:
        return None
    found = _complete(state)[tier]
    return found if found.start_ns < found.end_ns else None


def _complete(state: RollupState) -> dict[str, Complete]:
    return {
        MINUTES: Complete(state.minutes_from_ns, state.minutes_until_ns),
        HOURS: Complete(state.hours_from_ns, state.hours_until_ns),
    }


def standing(store: str) -> RollupStanding | None:
    """How far the roll-ups are; None where there are none. Three queries."""
    state = read_state(store)
    if state is None:
        return None
    waiting = RollupTouch.objects.filter(store=store)
    starts = Counter(tier for tier, _ in waiting.values_list("tier", "start_ns").distinct())
    oldest_ns = waiting.aggregate(oldest=Min("start_ns"))["oldest"]
    ranges = _complete(state)
    holder = lease_of(store).holder()
    return RollupStanding(
        ranges[MINUTES],
        ranges[HOURS],
        {tier: starts[tier] for tier in (MINUTES, HOURS)},
        oldest_ns,
        state.updated,
        bool(holder),
    )


def advance(store: str, *, minutes_until_ns: int, hours_until_ns: int, newest_ns: int) -> None:
    """Windows up to there have been rolled up: never less than before."""
    RollupState.objects.filter(store=store).update(
        minutes_until_ns=Greatest(F("minutes_until_ns"), minutes_until_ns),
        hours_until_ns=Greatest(F("hours_until_ns"), hours_until_ns),
        newest_ns=Greatest(F("newest_ns"), newest_ns),
        updated=Now(),
    )


def reach_back(store: str, start_ns: int) -> None:
    """All windows from ``start_ns`` (the start of an hour) have been rolled up."""
    RollupState.objects.filter(store=store, minutes_from_ns__gt=start_ns).update(minutes_from_ns=start_ns)
    RollupState.objects.filter(store=store, hours_from_ns__gt=start_ns).update(hours_from_ns=start_ns)


def forget(store: str) -> bool:
    """Nobody records touches of this store any more, so nothing can be said of its windows. Returns whether anything was known."""
    deleted, _ = RollupState.objects.filter(store=store).delete()
    touched, _ = RollupTouch.objects.filter(store=store).delete()
    return bool(deleted or touched)
