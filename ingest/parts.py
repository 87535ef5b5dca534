"""The labels that tell rows of one GPU and metric apart (which link, which peer): found by looking at what a source gives, then kept.

A label that was found for a metric is part of its name from then on, also after a restart: a name must not change whenever a second
row comes or goes.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from ingest.atomic import replacing
from readings.catalogue import PART_LABELS
from readings.labels import OWNER_LABELS, SOURCE_LABELS, Labelled

logger = logging.getLogger(__name__)

# At most so many labels make a name, so many metrics have labels that were found, and so many labels vary beside them. After each
# find all exporters' lines are read anew.
MOST_LABELS = 3
MOST_METRICS = 300
MOST_VARYING = 100
# Words in the names of labels that tell how a part is, not which part it is.
_STATES = ("status", "state", "msg", "message", "text", "reason", "error", "err_", "health", "type", "result", "code")


class _Kept(msgspec.Struct):
    """The file: labels by metric, and labels that are of readings too but make no name."""

    parts: dict[str, list[str]] = {}
    varying: list[str] = []


class Parts:
    """The labels found so far, for all sources of one streamer. Threads may share it.

    Kept in ``path``, if one is given. A disk that cannot be written costs the memory over restarts alone.
    """

    def __init__(self, path: Path | None = None, *, keeps: bool = True) -> None:
        self._path = path
        self._keeps = keeps and path is not None
        self._lock = threading.Lock()
        self._kept = _load(path)
        self.version = 0
        self._publish()

    def _publish(self) -> None:
        kept = self._kept
        self._by_metric = {metric: tuple(labels) for metric, labels in kept.parts.items()}
        # All labels that make names, and all that say nothing about the GPU itself.
        self.labels: tuple[str, ...] = tuple(sorted({label for labels in kept.parts.values() for label in labels}))
        self.of_readings: frozenset[str] = frozenset((*self.labels, *kept.varying))
        self.version += 1

    def of(self, metric_name: str) -> Sequence[str]:
        """The labels that were found for this metric."""
        return self._by_metric.get(metric_name, ())

    def find(self, metric_name: str, groups: Iterable[Sequence[Labelled]]) -> bool:
        """Looks for labels that tell the rows of each group apart; returns whether there is anything new to be kept.

        A group has the labels of the rows of one GPU, owner and time, of which a metric usually has one.
        """
        rows = [[_telling(labels) for labels in group] for group in groups]
        varying = set().union(*map(_varying, rows))
        with self._lock:
            kept = self._kept
            had = kept.parts.get(metric_name, [])
            found = _separating(_alike_in(rows, [*PART_LABELS, *had]), MOST_LABELS - len(had))
            if not had and len(kept.parts) >= MOST_METRICS:
                found = []
            new_varying = sorted(varying.difference(found, PART_LABELS, self.of_readings))[
                : max(0, MOST_METRICS - len(kept.varying))
            ]
            if not found and not new_varying:
                return False
            if found:
                kept.parts[metric_name] = had + found
                logger.info("%s: rows of one GPU differ in %s: a series for each", metric_name, " and ".join(found))
            kept.varying += new_varying
            self._publish()
            self._save()
            return True

    def _save(self) -> None:
        if not self._keeps or self._path is None:
            return
        try:
            with replacing(self._path) as file:
                file.write(msgspec.json.encode(self._kept))
        except OSError as error:
            logger.warning("cannot keep %s: %s: names of parts may change after a restart", self._path, error.strerror)


def _load(path: Path | None) -> _Kept:
    if path is None:
        return _Kept()
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kept)
    except FileNotFoundError:
        return _Kept()
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("cannot read %s, so parts are looked for anew: %s", path, error)
        return _Kept()


def _telling(labels: Labelled) -> dict[str, str]:
    """The labels that may tell parts apart: those of owners, versions and the GPU itself do not."""
    return {
        name: value
        for name, value in labels
        if name not in SOURCE_LABELS and name not in OWNER_LABELS and "version" not in name.lower()
    }


def _varying(group: Sequence[Mapping[str, str]]) -> set[str]:
    """The labels in which rows of a group differ."""
    seen: Counter[str] = Counter()
    first: dict[str, str] = {}
    varying: set[str] = set()
    for labels in group:
        seen.update(labels.keys())
        varying.update(label for label, value in labels.items() if first.setdefault(label, value) != value)
    return varying.union(label for label, count in seen.items() if count < len(group))


def _alike_in(groups: Iterable[Sequence[dict[str, str]]], labels: Sequence[str]) -> list[list[dict[str, str]]]:
    """The groups cut up by the values of these labels, without the rows that stand alone then."""
    cut: dict[tuple[object, ...], list[dict[str, str]]] = {}
    for number, group in enumerate(groups):
        for row in group:
            cut.setdefault((number, *[row.get(label, "") for label in labels]), []).append(row)
    return [group for group in cut.values() if len(group) > 1]


def _separating(groups: list[list[dict[str, str]]], most: int) -> list[str]:
    """The fewest labels, one by one the best, with which no two rows of a group are alike; or as near as ``most`` come to it."""
    rows = sum(map(len, groups))
    seen = Counter(label for group in groups for labels in group for label in labels)
    # A label in fewer than half of the rows tells few apart. It also bounds the work: labels times rows is then in proportion to
    # the text that they were read from.
    candidates = [label for label, count in seen.items() if 2 * count >= rows]
    chosen: list[str] = []
    left = _twins(groups, [])
    while left and candidates and len(chosen) < most:
        twins = {label: _twins(groups, [*chosen, label]) for label in candidates}
        least = min(twins.values())
        best = min((each for each in candidates if twins[each] == least), key=lambda label: _preference(label, groups))
        if least >= left:
            break
        chosen.append(best)
        candidates.remove(best)
        left = least
    return chosen


def _twins(groups: Iterable[Sequence[Mapping[str, str]]], labels: Sequence[str]) -> int:
    """How many rows have an earlier one with the same values of these labels in their group."""
    return sum(len(group) - len({tuple([row.get(label, "") for label in labels]) for row in group}) for group in groups)


def _preference(label: str, groups: Iterable[Iterable[Mapping[str, str]]]) -> tuple[bool, bool, str]:
    """Of labels that tell rows apart equally well: which part it is before how it is, numbers before texts."""
    name = label.lower()
    values = {row[label] for group in groups for row in group if label in row}
    return any(word in name for word in _STATES), not all(value.isalnum() for value in values), label
