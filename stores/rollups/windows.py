"""What roll-ups keep: windows of a minute and of an hour, at four levels, with a few statistics for each metric.

A window is a pure function of the raw readings in it (and, for counters, of the reading before them). Writing it again overwrites it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from readings.catalogue import combine_of, info
from readings.times import SECOND
from stores.aggregate.functions import Floats, Ints

Tier = Literal["1m", "1h"]
Level = Literal["gpu", "host", "model", "fleet"]

STEP_NS: dict[Tier, int] = {"1m": 60 * SECOND, "1h": 3600 * SECOND}
# The levels that are kept in each tier.
LEVELS: dict[Tier, tuple[Level, ...]] = {"1m": ("host", "model", "fleet"), "1h": ("gpu", "host", "model", "fleet")}

# Of all readings that count in the window: how many, their sum, the smallest and largest, and the newest (of equally new ones the largest).
COUNT, TOTAL, LOW, HIGH, LAST = "count", "total", "low", "high", "last"
# The sum over boards of each board's mean. At the level of GPUs it follows from total and count.
MEANS = "means"
# Of counters: how much they grew, counted from the reading before the window; and the part of it that came with each GPU's first reading
# in the window, which a range that begins with this window does not have.
INCREASE, CARRIED = "increase", "carried"
# Of the fleet: percentiles over the boards' means.
P5, P50, P95 = "p5", "p50", "p95"
STATS = (COUNT, TOTAL, LOW, HIGH, LAST, MEANS, INCREASE, CARRIED, P5, P50, P95)


def stats_of(metric_name: str, level: Level) -> tuple[str, ...]:
    """The statistics that a level keeps of a metric: of codes and bitmasks only the last reading, of counters no sums."""
    if combine_of(metric_name) == "never":
        return (LAST,)
    metric = info(metric_name)
    if metric is not None and metric.kind == "counter":
        return (COUNT, LOW, HIGH, LAST, INCREASE, CARRIED)
    if level == "gpu":
        return (COUNT, TOTAL, LOW, HIGH, LAST)
    if level == "fleet":
        return (COUNT, TOTAL, LOW, HIGH, LAST, MEANS, P5, P50, P95)
    return (COUNT, TOTAL, LOW, HIGH, LAST, MEANS)


class WindowKey(NamedTuple):
    """What a window is of, by its level.

    ``gpu``: all four (a GPU or MIG instance, on one host). ``host``: host and model. ``model``: the model. ``fleet``: none.
    """

    uuid: str = ""
    mig_id: str = ""
    hostname: str = ""
    model: str = ""


# The fields of a key that a level has.
KEY_FIELDS: dict[Level, tuple[str, ...]] = {
    "gpu": ("hostname", "mig_id", "model", "uuid"),
    "host": ("hostname", "model"),
    "model": ("model",),
    "fleet": (),
}


@dataclass(frozen=True, slots=True)
class WindowTable:
    """Windows of one tier and level. Row i is of ``keys[places[i]]`` and begins at ``starts_ns[i]``.

    ``stats`` has an array of rows x metrics for each statistic; NaN where there is none.
    """

    tier: Tier
    level: Level
    keys: Sequence[WindowKey]
    names: Sequence[str]
    places: Ints
    starts_ns: Ints
    stats: Mapping[str, Floats]

    def __len__(self) -> int:
        return len(self.places)


class RollupStore(Protocol):
    """Keeps windows beside a store of readings. Safe to call from several threads.

    Every method may raise StoreError or StoreUnavailable.
    """

    def write(self, tables: Sequence[WindowTable]) -> None:
        """Store all windows durably, or raise. A statistic replaces the one there was; NaN replaces nothing."""

    def read(
        self,
        tier: Tier,
        level: Level,
        metric_name: str,
        stats: Sequence[str],
        start_ns: int,
        end_ns: int,
        *,
        gpus: Sequence[str] = (),
        hostnames: Sequence[str] = (),
        models: Sequence[str] = (),
    ) -> WindowTable:
        """The windows of one metric that begin in [start_ns, end_ns), in order of time, with these statistics.

        An empty sequence is no condition. ``gpus`` names boards (by uuid, with their instances) or single instances (``uuid:mig_id``).
        """

    def drop(self, tier: Tier, start_ns: int, end_ns: int) -> None:
        """Remove the windows that begin in [start_ns, end_ns), so that they can be made anew."""

    def apply_retention(self, now_ns: int) -> None:
        """Drop windows older than each tier's retention, where the store's own server does not."""

    def bytes(self) -> dict[Tier, int]:
        """The size of each tier, as far as it is known."""

    def ping(self) -> None:
        """Raise StoreUnavailable unless the store answers now, and StoreError where it cannot keep roll-ups."""

    def close(self) -> None:
        """Close files and connections. Idempotent."""
