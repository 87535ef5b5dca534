"""Only one ``watch`` judges at a time: the one that has the lease in the database. Its times are the database's."""

from __future__ import annotations

import secrets
import socket
from datetime import timedelta

from django.db.models import DateTimeField, ExpressionWrapper, Q
from django.db.models.functions import Now

from health.models import WatchState

LEASE = timedelta(seconds=20)
RENEW_SECONDS = 5.0
_STATE = 1


def make_holder() -> str:
    """A name for this process that no other has: its host, and something random."""
    return f"{socket.gethostname()[:100]}:{secrets.token_hex(6)}"


def take_lease(holder: str) -> bool:
    """Take or renew the lease; returns whether this holder has it now. Raises DatabaseError."""
    WatchState.objects.get_or_create(pk=_STATE)
    free = Q(holder=holder) | Q(holder="") | Q(lease_until=None) | Q(lease_until__lt=Now())
    until = ExpressionWrapper(Now() + LEASE, DateTimeField())
    return WatchState.objects.filter(free, pk=_STATE).update(holder=holder, lease_until=until) == 1


def renew_lease(holder: str) -> bool:
    """Renew the lease; returns whether this holder still has it, which also one has whose lease ran out untaken."""
    until = ExpressionWrapper(Now() + LEASE, DateTimeField())
    return WatchState.objects.filter(pk=_STATE, holder=holder).update(lease_until=until) == 1


def give_lease_back(holder: str) -> None:
    """Let another one take over at once."""
    WatchState.objects.filter(pk=_STATE, holder=holder).update(holder="", lease_until=None)


def lease_holder() -> str:
    """Who has the lease, if it has not run out; empty if nobody has."""
    held = WatchState.objects.filter(pk=_STATE, lease_until__gte=Now())
    return held.values_list("holder", flat=True).first() or ""
