"""Turns sightings into one ``Seen`` per GPU row that a flush updates, including the boards of MIG instances."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from inventory.sync.sightings import Sightings, Span
from readings.times import to_datetime


class Pod(NamedTuple):
    """What runs on a GPU. All three are empty when nothing is known to run."""

    namespace: str
    pod: str
    container: str


NOTHING = Pod("", "", "")


class Observation(NamedTuple):
    """A GPU's host, slot and pod from one reading to another. ``pod`` is None where the readings do not say."""

    hostname: str
    slot: int | None
    pod: Pod | None
    first: datetime
    last: datetime


@dataclass(slots=True)
class Seen:
    """The changes of one flush to one row. ``observations`` are ordered by their last readings."""

    id: str
    uuid: str
    mig_id: str = ""
    observations: list[Observation] = field(default_factory=list)
    described: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    shares: list[Observation] = field(default_factory=list)

    @property
    def first(self) -> datetime:
        return min(each.first for each in self.observations or self.shares)

    @property
    def last(self) -> datetime:
        return max(each.last for each in self.observations or self.shares)


def gather(sightings: Sightings) -> dict[str, Seen]:
    """The changes to each row, by GPU id, in the order of ids.

    A MIG instance is part of its board: the board's row is seen with it, and gets its host and slot.
    """
    rows: dict[str, Seen] = {}
    boards: dict[str, Seen] = {}
    for gpu_id, sighting in sightings.gpus():
        spans = sighting.spans()
        gpu = spans[-1].gpu
        seen = rows[gpu_id] = Seen(gpu_id, gpu.uuid, gpu.mig_id)
        _describe(seen, spans)
        if gpu.mig_id:
            _add_to_board(boards.setdefault(gpu.uuid, Seen(gpu.uuid, gpu.uuid)), seen)
    for uuid, board in boards.items():
        own = rows.setdefault(uuid, board)
        if own is not board:
            _join(own, board)
    for span in sightings.shares():
        gpu = span.gpu
        seen = rows.setdefault(gpu.id, Seen(gpu.id, gpu.uuid, gpu.mig_id))
        seen.shares.append(_observation(span))
        if not seen.observations:  # the row may have to be created from the share alone
            seen.described = _described(span)
    for seen in rows.values():
        # Where two end together, the one that names a pod comes last and wins.
        seen.observations.sort(key=lambda each: (each.last, bool(each.pod and any(each.pod))))
    return dict(sorted(rows.items()))


def _observation(span: Span) -> Observation:
    gpu = span.gpu
    pod = Pod(gpu.namespace, gpu.pod, gpu.container)
    return Observation(gpu.hostname, gpu.gpu_id, pod, to_datetime(span.first_ns), to_datetime(span.last_ns))


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
        seen.observations.append(_observation(span))
        seen.described.update((name, text) for name, text in _described(span).items() if text)
        if span.gpu.labels:
            seen.labels = dict(span.gpu.labels)


def _add_to_board(board: Seen, instance: Seen) -> None:
    board.observations.extend(each._replace(pod=None) for each in instance.observations)
    for name, text in instance.described.items():
        if name != "mig_profile":
            board.described.setdefault(name, text)


def _join(own: Seen, board: Seen) -> None:
    own.observations.extend(board.observations)
    own.described = {**board.described, **own.described}
