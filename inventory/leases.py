"""Only one process at a time does a task: the one that has the task's lease in the database. Times are the database's."""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import models
from django.db.models import DateTimeField, ExpressionWrapper, Q, QuerySet
from django.db.models.functions import Now

LEASE = timedelta(seconds=20)
RENEW_SECONDS = 5.0


def make_holder() -> str:
    """A name for this process that no other has: its host, and something random."""
    return f"{socket.gethostname()[:100]}:{secrets.token_hex(6)}"


@dataclass(frozen=True, slots=True)
class Lease:
    """The lease in the fields ``holder`` and ``lease_until`` of one row of a table. Every method may raise DatabaseError."""

    model: type[models.Model]
    field: str
    value: Any

    def take(self, holder: str) -> bool:
        """Take or renew it; returns whether this holder has it now. Makes the row if it is missing."""
        self.model._default_manager.get_or_create(**{self.field: self.value})
        free = Q(holder=holder) | Q(holder="") | Q(lease_until=None) | Q(lease_until__lt=Now())
        return self._rows().filter(free).update(holder=holder, lease_until=_until()) == 1

    def renew(self, holder: str) -> bool:
        """Renew it; returns whether this holder still has it, which also one has whose lease ran out untaken."""
        return self._rows().filter(holder=holder).update(lease_until=_until()) == 1

    def give_back(self, holder: str) -> None:
        """Let another one take over at once."""
        self._rows().filter(holder=holder).update(holder="", lease_until=None)

    def holder(self) -> str:
        """Who has it, if it has not run out; empty if nobody has."""
        held = self._rows().filter(lease_until__gte=Now())
        return held.values_list("holder", flat=True).first() or ""

    def _rows(self) -> QuerySet[models.Model]:
        return self.model._default_manager.filter(**{self.field: self.value})


def _until() -> ExpressionWrapper[Any]:
    return ExpressionWrapper(Now() + LEASE, DateTimeField())
