"""The events of one host or GPU, for its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dashboard.event_filters import worst_first
from dashboard.event_rows import EventRow, EventRows, events_url
from health.models import ONGOING, EventState
from health.muting import board_of
from health.queries import EventFilter, events_matching

MOST = 8
DAYS = 7


@dataclass(frozen=True, slots=True)
class RecentEvents:
    """Those that are open, the worst first, then what was over within the last days. ``more``: there are others."""

    rows: list[EventRow]
    more: bool
    url: str


def events_of_gpu(gpu_id: str, now: datetime) -> RecentEvents:
    """The events of a GPU; of a MIG instance with those of its board. At most five queries."""
    return _recent(now, events_url(state="all", uuid=gpu_id, range="7d"), gpus=sorted({gpu_id, board_of(gpu_id)}))


def events_of_host(hostname: str, now: datetime) -> RecentEvents:
    """The events of a host, its GPUs and slots. At most five queries."""
    return _recent(now, events_url(state="all", hostname=hostname, range="7d"), hostnames=(hostname,))


def _recent(now: datetime, url: str, *, gpus: Sequence[str] = (), hostnames: Sequence[str] = ()) -> RecentEvents:
    ongoing = events_matching(EventFilter(gpus=gpus, hostnames=hostnames, states=ONGOING))
    found = list(worst_first(ongoing)[: MOST + 1])
    if len(found) <= MOST:
        wanted = EventFilter(
            gpus=gpus, hostnames=hostnames, states=(EventState.CLOSED,), start=now - timedelta(days=DAYS), end=now
        )
        found += events_matching(wanted)[: MOST + 1 - len(found)]
    return RecentEvents(EventRows(now).rows(found[:MOST]), len(found) > MOST, url)
