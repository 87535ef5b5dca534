"""Rows of a capture that are of one GPU, metric and time and differ in a label: parts of the GPU, or one of them is refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ingest.parts import Parts
from readings.catalogue import whole_of
from readings.labels import OWNER_LABELS

# Rows that are remembered: those of a fleet's scrape.
_MOST_REMEMBERED = 200_000


class Described(NamedTuple):
    """What a row tells of its GPU beside the reading. ``identity`` also has the pod that holds it: rows of several are shares."""

    identity: tuple[str, ...]
    labels: Mapping[str, str]
    owned: bool = False  # by more than that pod


class LabelledRow(NamedTuple):
    """A row of a GPU; ``name`` is that of the metric as it is stored."""

    described: Described
    name: str
    time_ns: int
    value: float


class Twins:
    """Looks for rows that differ in nothing but labels, and lets ``parts`` look for labels that name a part."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._firsts: dict[tuple[tuple[str, ...], str], Described] = {}
        self._suspects: set[tuple[tuple[str, ...], str]] = set()
        self.suspected_gpus: set[tuple[str, ...]] = set()
        self._seen: dict[tuple[tuple[str, ...], str, int], LabelledRow] = {}

    def suspects(self, described: Described, name: str) -> bool:
        """Whether rows of this GPU and metric have had different labels."""
        key = (described.identity, name)
        if key in self._suspects:
            return True
        if len(self._firsts) >= _MOST_REMEMBERED:
            self._firsts.clear()
        if not _differ(self._firsts.setdefault(key, described), described):
            return False
        self._suspects.add(key)
        self.suspected_gpus.add(described.identity)
        return True

    def begin_anew(self) -> None:
        """Forget the rows, and keep which GPUs and metrics to look at."""
        self._seen.clear()

    def second(self, rows: Iterable[LabelledRow]) -> list[int]:
        """The places of rows that contradict an earlier one. Those that a new part tells apart are no longer among them next time."""
        groups: defaultdict[str, dict[tuple[object, ...], list[Described]]] = defaultdict(dict)
        seconds: list[int] = []
        seen = self._seen
        for place, row in enumerate(rows):
            key = (row.described.identity, row.name, row.time_ns)
            first = seen.setdefault(key, row)
            if _differ(first.described, row.described) and not _are_shares(first, row):
                seconds.append(place)
                groups[whole_of(row.name)].setdefault(key, [first.described]).append(row.described)
        while len(seen) > _MOST_REMEMBERED:
            del seen[next(iter(seen))]
        for metric, of_metric in groups.items():
            self._parts.find(metric, [[each.labels.items() for each in group] for group in of_metric.values()])
        return seconds


def _differ(first: Described, second: Described) -> bool:
    return first is not second and first.labels != second.labels


def _are_shares(first: LabelledRow, second: LabelledRow) -> bool:
    """Whether two owners of a GPU repeat its value."""
    if not (first.described.owned or second.described.owned) or first.value != second.value:
        return False
    return _without_owners(first.described) == _without_owners(second.described)


def _without_owners(described: Described) -> dict[str, str]:
    return {name: value for name, value in described.labels.items() if name not in OWNER_LABELS}
