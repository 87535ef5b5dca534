"""What sources produce: single readings, and rows that were refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from readings.catalogue import PART_LABELS, name_of_part
from readings.checks import TOO_MANY_PARTS, Refused, check_metric_name
from readings.description import describe_gpu
from readings.labels import Remark
from readings.model import Gpu
from readings.units import NEW_DRIVER_LABEL, OLD_DRIVER_LABEL, Folded, SourceUnits

# Names of a GPU's identity columns in sources.
IDENTITY = (
    "uuid",
    "hostname",
    "gpu_id",
    "device",
    "model_name",
    "mig_id",
    "mig_profile",
    "container",
    "pod",
    "namespace",
)


class Sample(NamedTuple):
    """One reading of one GPU. ``time_ns`` is 0 if the source's time is not used."""

    gpu: Gpu
    metric_name: str
    time_ns: int
    value: float


class RefusedRow(NamedTuple):
    """A row or line without a usable reading: its number (from 1), reason, detail and text."""

    line: int
    reason: str
    detail: str
    raw: str


def make_gpu(
    columns: Mapping[str, str], extras: Mapping[str, str], remarks: Iterable[Remark] = ()
) -> tuple[Gpu, list[Remark]]:
    """The GPU of a row, and the remarks: those given and one on each field that is left out. Raises Refused.

    ``columns`` has the fields named in IDENTITY, ``extras`` the other labels.
    """
    return describe_gpu(
        {**{name: text for name, text in columns.items() if name in IDENTITY}, "labels": extras}, remarks
    )


# The most parts of one metric in one source.
MOST_PARTS = 1000
# Labels that decide what a metric name means.
NAMING_LABELS = (*PART_LABELS, OLD_DRIVER_LABEL, NEW_DRIVER_LABEL)
_MAX_CACHED_NAMES = 10_000

NamingLabels = tuple[tuple[str, str], ...]


def naming_labels(labels: Mapping[str, str], found: Iterable[str] = ()) -> NamingLabels:
    """The labels of a row that decide what its metric name means; ``found`` names those of unknown parts."""
    return tuple((name, labels[name]) for name in (*NAMING_LABELS, *found) if name in labels)


class PartNames:
    """The names of parts that one source has given, at most MOST_PARTS of a metric: more are not links or peers."""

    def __init__(self) -> None:
        self._by_metric: defaultdict[str, set[str]] = defaultdict(set)

    def admit(self, metric_name: str, name: str) -> None:
        """Raises Refused for one more than there may be."""
        names = self._by_metric[metric_name]
        if name not in names:
            if len(names) >= MOST_PARTS:
                raise Refused(TOO_MANY_PARTS, f"{name[:80]}: only {MOST_PARTS} parts of this metric are kept apart")
            names.add(name)


def metric_namer(
    units: SourceUnits, parts_of: Callable[[str], Sequence[str]] = lambda name: (), names: PartNames | None = None
) -> Callable[[str, NamingLabels], Folded]:
    """Returns a function from a source's metric names to the stored ones. It remembers its answers, and raises Refused for bad names.

    ``parts_of`` gives the labels that tell the parts of a metric apart, beside those that are known for all; ``names`` has the
    names of parts that the source has given before.
    """
    given = PartNames() if names is None else names

    @lru_cache(maxsize=_MAX_CACHED_NAMES)
    def stored_name(text: str, naming: NamingLabels) -> Folded:
        labels = dict(naming)
        name, convert = units.fold(text, labels)
        whole = check_metric_name(name)
        name = name_of_part(whole, labels, parts_of(whole))
        if name != whole:
            given.admit(whole, check_metric_name(name))
        return Folded(name, convert)

    return stored_name
