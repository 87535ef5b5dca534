"""Sightings put in the inventory's terms: one ``Seen`` per row that a flush concerns, physical GPUs of MIG instances included."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from inventory.sync.sightings import Latest, Sightings, Span
from readings.mig import BOARD_METRICS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Pod(NamedTuple):
    """What ran: all three are empty when nothing is known to."""

    namespace: str
    pod: str
    container: str


NOTHING = Pod("", "", "")


class Stay(NamedTuple):
    """Where a GPU was and what ran there, from one reading to another. ``pod`` is None where that was not told."""

    hostname: str
    slot: int | None
    pod: Pod | None
    first: datetime
    last: datetime


@dataclass(slots=True)
class Seen:
    """What a flush says about one row. ``stays`` are in the order of their last readings."""

    id: str
    uuid: str
    mig_id: str = ""
    stays: list[Stay] = field(default_factory=list)
    described: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    latest: Latest = field(default_factory=dict)
    shares: list[Stay] = field(default_factory=list)

    @property
    def first(self) -> datetime:
        return min(stay.first for stay in self.stays or self.shares)

    @property
    def last(self) -> datetime:
        return max(stay.last for stay in self.stays or self.shares)


def to_datetime(time_ns: int) -> datetime:
    """UTC time, cut to the microsecond."""
    return _EPOCH + timedelta(microseconds=time_ns // 1000)


def to_ns(moment: datetime) -> int:
    """Nanoseconds since 1970 UTC."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def gather(sightings: Sightings) -> dict[str, Seen]:
    """What each row is to learn, by GPU id and in the order of ids.

    A MIG instance is part of its board: the board's row is seen with it, sits where it sits and takes its board metrics,
    of the instances' values the newest and of equally new ones the largest; the board's own readings go before theirs.
    """
    found: dict[str, Seen] = {}
    boards: dict[str, Seen] = {}
    for gpu_id, sighting in sightings.gpus():
        spans = sighting.spans()
        gpu = spans[-1].gpu
        seen = found[gpu_id] = Seen(gpu_id, gpu.uuid, gpu.mig_id, latest=sighting.latest())
        _describe(seen, spans)
        if gpu.mig_id:
            _add_to_board(boards.setdefault(gpu.uuid, Seen(gpu.uuid, gpu.uuid)), seen)
    for uuid, board in boards.items():
        own = found.setdefault(uuid, board)
        if own is not board:
            _join(own, board)
    for span in sightings.shares():
        gpu = span.gpu
        seen = found.setdefault(gpu.id, Seen(gpu.id, gpu.uuid, gpu.mig_id))
        seen.shares.append(_stay(span))
        if not seen.stays:  # the row may have to be made from what the share says
            seen.described = _described(span)
    for seen in found.values():
        # Of two stays that end together, the one that names a pod says more.
        seen.stays.sort(key=lambda stay: (stay.last, bool(stay.pod and any(stay.pod))))
    return dict(sorted(found.items()))


def _stay(span: Span) -> Stay:
    gpu = span.gpu
    pod = Pod(gpu.namespace, gpu.pod, gpu.container)
    return Stay(gpu.hostname, gpu.gpu_id, pod, to_datetime(span.first_ns), to_datetime(span.last_ns))


def _described(span: Span) -> dict[str, str]:
    gpu = span.gpu
    return {
        "device": gpu.device,
        "model_name": gpu.model_name,
        "mig_profile": gpu.mig_profile,
        "driver_version": gpu.driver_version[:64],  # a label may be longer than its column
    }


def _describe(seen: Seen, spans: Iterable[Span]) -> None:
    for span in spans:
        seen.stays.append(_stay(span))
        seen.described.update((name, text) for name, text in _described(span).items() if text)
        if span.gpu.labels:
            seen.labels = dict(span.gpu.labels)


def _add_to_board(board: Seen, instance: Seen) -> None:
    board.stays.extend(stay._replace(pod=None) for stay in instance.stays)
    for name, text in instance.described.items():
        if name != "mig_profile":
            board.described.setdefault(name, text)
    for name in BOARD_METRICS & instance.latest.keys():
        value, time_ns = instance.latest[name]
        known = board.latest.get(name)
        if known is None or (time_ns, value) > (known[1], known[0]):
            board.latest[name] = (value, time_ns)


def _join(own: Seen, board: Seen) -> None:
    own.stays.extend(board.stays)
    own.described = {**board.described, **own.described}
    for name, (value, time_ns) in board.latest.items():
        known = own.latest.get(name)
        if known is None or time_ns > known[1]:
            own.latest[name] = (value, time_ns)
