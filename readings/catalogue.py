"""The catalogue of GPU metrics (catalogue.toml): all that dcgm-exporter can give, under one name and one unit each."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec

Kind = Literal["gauge", "counter", "event"]
Scope = Literal["board", "instance"]
Combine = Literal["sum", "mean", "max", "one", "never"]
# For metrics that nobody has described. Added up over instances, a temperature or a bitmask would become nonsense.
UNKNOWN_COMBINE: Combine = "max"


class MetricInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One metric: a table of catalogue.toml, which explains its keys. A new key there is a new field here."""

    name: str
    aliases: tuple[str, ...] = ()
    title: str
    unit: str
    kind: Kind
    scope: Scope
    combine: Combine
    called_counter: bool = False
    range: tuple[int | float, int | float]
    description: str

    @property
    def spellings(self) -> tuple[str, ...]:
        """Every name of this metric in sources. Some exporters (gpud) write names in lower case. OpenMetrics, and OpenTelemetry with
        it, ends the name of a counter in ``_total``."""
        names = tuple(dict.fromkeys(form for name in (self.name, *self.aliases) for form in (name, name.lower())))
        return with_totals(names) if self.kind == "counter" or self.called_counter else names

    @property
    def low(self) -> float | None:
        """The lowest possible value, or None without a bound."""
        return self.range[0] if math.isfinite(self.range[0]) else None

    @property
    def high(self) -> float | None:
        """The highest possible value, or None without a bound."""
        return self.range[1] if math.isfinite(self.range[1]) else None


def with_totals(names: Iterable[str]) -> tuple[str, ...]:
    """Each name of a counter, and the same as OpenMetrics writes it: with ``_total`` at its end."""
    plain = tuple(names)
    return (*plain, *(f"{name}_total" for name in plain if not name.endswith("_total")))


def _read() -> Mapping[str, MetricInfo]:
    tables = tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text("utf-8"))
    return MappingProxyType(
        {name: msgspec.convert({"name": name, **keys}, MetricInfo) for name, keys in tables.items()}
    )


CATALOGUE = _read()

_CANONICAL = {name: metric.name for metric in CATALOGUE.values() for name in metric.spellings}
_COUNTERS = frozenset(metric.name for metric in CATALOGUE.values() if metric.kind == "counter")

# A GPU has several links, XIDs, peers and so on. These labels say which one a row belongs to.
PART_LABELS = ("nvlink", "xid", "clock_event", "health_watch", "peer_gpu")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_.-]+")


def canonical_name(name: str) -> str:
    """The name under which a metric is stored: trimmed, aliases replaced. Unknown names stay as they are."""
    canonical = _CANONICAL.get(name)
    if canonical is not None:
        return canonical
    trimmed = name.strip()
    canonical = _CANONICAL.get(trimmed)
    if canonical is None and ":" in trimmed:
        whole, colon, part = trimmed.partition(":")
        return _CANONICAL.get(whole, whole) + colon + part
    return trimmed if canonical is None else canonical


def is_creation_time(name: str) -> bool:
    """Whether this is no metric, but since when a known counter counts: OpenMetrics tells it as ``NAME_created``."""
    return name.endswith("_created") and canonical_name(name.removesuffix("_created") + "_total") in CATALOGUE


def name_of_part(name: str, labels: Mapping[str, str], others: Sequence[str] = ()) -> str:
    """The metric's name for one link, XID or clock event of a GPU: ``NAME:nvlink:3``. Other rows keep the name.

    Otherwise the rows of all links would be one series with many values at one time. ``others`` names more labels that tell this
    metric's parts apart.
    """
    for label in (*PART_LABELS, *others):
        value = labels.get(label)
        if value:
            name = f"{name}:{label}:{_NOT_PLAIN.sub('_', value)}"
    return name


def whole_of(name: str) -> str:
    """``NAME`` for ``NAME:nvlink:3``; any other name unchanged."""
    return name.partition(":")[0]


def info(name: str) -> MetricInfo | None:
    """The catalogue's entry for a name, an alias or a part; None if there is none."""
    return CATALOGUE.get(whole_of(canonical_name(name)))


def is_counter(name: str) -> bool:
    """Whether a stored metric, or its part, only grows until the GPU or its driver restarts."""
    return name in _COUNTERS or (":" in name and whole_of(name) in _COUNTERS)


def combine_of(name: str) -> Combine:
    """How a board's value follows from those of its instances; for unknown metrics the largest counts once."""
    metric = info(name)
    return metric.combine if metric else UNKNOWN_COMBINE


def is_of_board(name: str) -> bool:
    """Whether the value is of the whole board, so that MIG instances only repeat it."""
    metric = info(name)
    return metric is not None and metric.scope == "board"


def unit_of(name: str) -> str:
    """The unit in which values are stored, or an empty string if unknown."""
    metric = info(name)
    return metric.unit if metric else ""
