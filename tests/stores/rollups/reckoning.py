"""What windows have to hold, worked out in the plainest way from the readings one by one; and readings to try it with."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from readings.catalogue import is_counter
from readings.mig import how_parts_combine
from readings.model import Gpu, PointBlock
from stores.aggregate.arrays import ReadingArrays, ReadingSource, columns_of
from stores.rollups.partials import SourcePartials
from stores.rollups.windows import LEVELS, STEP_NS, Level, Tier, WindowKey, WindowTable, stats_of

# A busy machine is no failure.
UNTIMED = settings(deadline=None, suppress_health_check=list(HealthCheck))

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
UTIL, MEMORY, POWER = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_POWER_USAGE"
ENERGY, REPLAYS, XID = (
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER",
    "DCGM_FI_DEV_XID_ERRORS",
)
UNKNOWN = "some_metric"
NAMES = (UTIL, MEMORY, POWER, ENERGY, REPLAYS, XID, UNKNOWN)


class Given(NamedTuple):
    """A reading. There is one for each GPU, metric and time."""

    gpu: Gpu
    name: str
    time_ns: int
    value: float


# Level, key, metric, statistic.
Cell = tuple[Level, WindowKey, str, str]


def reckoned(readings: Iterable[Given], tier: Tier, start_ns: int) -> dict[Cell, float]:
    """All statistics of the windows that begin at ``start_ns``. ``readings`` are all there are, of any time."""
    end_ns = start_ns + STEP_NS[tier]
    cells: dict[Cell, float] = {}
    by_name: dict[str, list[Given]] = defaultdict(list)
    for each in readings:
        by_name[each.name].append(each)
    for name, all_of_it in by_name.items():
        inside = [each for each in all_of_it if start_ns <= each.time_ns < end_ns]
        steps = _steps(each for each in all_of_it if each.time_ns < end_ns)
        since = _steps(inside)
        for level in LEVELS[tier]:
            for key in {key_of(each.gpu, level) for each in inside}:
                stats = _stats(name, level, [each for each in inside if key_of(each.gpu, level) == key])
                grown = _grown(name, level, [each for each in steps if each.time_ns >= start_ns], key)
                if grown is not None:
                    stats["increase"] = grown
                    grown_since = _grown(name, level, since, key)
                    if grown_since is not None:
                        stats["carried"] = grown - grown_since
                kept = stats_of(name, level)
                cells |= {(level, key, name, stat): value for stat, value in stats.items() if stat in kept}
    return cells


def key_of(gpu: Gpu, level: Level) -> WindowKey:
    """The key of a GPU's window."""
    match level:
        case "gpu":
            return WindowKey(gpu.uuid, gpu.mig_id, gpu.hostname, gpu.model_name)
        case "host":
            return WindowKey(hostname=gpu.hostname, model=gpu.model_name)
        case "model":
            return WindowKey(model=gpu.model_name)
    return WindowKey()


def _steps(readings: Iterable[Given]) -> list[Given]:
    """For each reading that has one before it, of the same GPU, how much the counter grew."""
    counters: dict[tuple[str, str], list[Given]] = defaultdict(list)
    for each in readings:
        if is_counter(each.name):
            counters[each.gpu.id, each.name].append(each)
    steps = []
    for of_gpu in counters.values():
        of_gpu.sort(key=lambda each: each.time_ns)
        for before, after in pairwise(of_gpu):
            grown = after.value if after.value < before.value else after.value - before.value
            steps.append(after._replace(value=grown))
    return steps


def _boards(name: str, level: Level, readings: Sequence[Given]) -> dict[str, dict[str, list[Given]]]:
    """The readings of a group that count, by board and part."""
    boards: dict[str, dict[str, list[Given]]] = defaultdict(lambda: defaultdict(list))
    for each in readings:
        board, part = (each.gpu.id, "") if level == "gpu" else (each.gpu.uuid, each.gpu.mig_id)
        boards[board][part].append(each)
    for board, parts in boards.items():
        if "" in parts:
            boards[board] = {"": parts[""]}
        elif how_parts_combine(name) == "once":
            best = max(fmean(each.value for each in of) for of in parts.values())
            chosen = min(part for part, of in parts.items() if fmean(each.value for each in of) == best)
            boards[board] = {chosen: parts[chosen]}
    return boards


def _grown(name: str, level: Level, steps: Sequence[Given], key: WindowKey) -> float | None:
    of_group = [each for each in steps if key_of(each.gpu, level) == key]
    counting = [each.value for parts in _boards(name, level, of_group).values() for of in parts.values() for each in of]
    return math.fsum(counting) if counting else None


def _stats(name: str, level: Level, readings: Sequence[Given]) -> dict[str, float]:
    boards = _boards(name, level, readings)
    counting = [each for parts in boards.values() for of in parts.values() for each in of]
    values = [each.value for each in counting]
    combine = fmean if how_parts_combine(name) == "average" else math.fsum
    means = sorted(combine([fmean(each.value for each in of) for of in parts.values()]) for parts in boards.values())
    return {
        "count": float(len(values)),
        "total": math.fsum(values),
        "low": min(values),
        "high": max(values),
        "last": max((each.time_ns, each.value) for each in counting)[1],
        "means": math.fsum(means),
        **{f"p{percent}": means[max(math.floor(len(means) * percent / 100 + 0.5), 1) - 1] for percent in (5, 50, 95)},
    }


def held(tables: Iterable[WindowTable]) -> dict[Cell, float]:
    """All statistics in tables of one window."""
    cells: dict[Cell, float] = {}
    for table in tables:
        for row, place in enumerate(table.places.tolist()):
            for stat, values in table.stats.items():
                for name, value in zip(table.names, values[row].tolist(), strict=True):
                    if not math.isnan(value):
                        cells[table.level, table.keys[place], name, stat] = value
    return cells


def blocks_of(readings: Iterable[Given]) -> list[PointBlock]:
    """A block for each GPU as it is described, its points in the order of the readings."""
    blocks: dict[tuple[str, str, str], PointBlock] = {}
    for gpu, name, time_ns, value in readings:
        block = blocks.setdefault((gpu.id, gpu.hostname, gpu.model_name), PointBlock([gpu], list(NAMES), []))
        if not block.points or block.points[-1][1] != time_ns:
            block.points.append((0, time_ns, [None] * len(NAMES)))
        block.points[-1][2][NAMES.index(name)] = value
    return list(blocks.values())


def gpu(uuid: str, mig_id: str = "", host: int = 0, model: str = "A") -> Gpu:
    """A GPU, or an instance of one."""
    return Gpu(uuid=uuid, mig_id=mig_id, hostname=f"host-{host}", model_name=model)


_VALUES = st.integers(0, 12).map(lambda number: number / 2)
_WHOSE = st.tuples(st.sampled_from("UVW"), st.sampled_from(("", "", "1", "2")))


@st.composite
def points(draw: st.DrawFn, *, minutes: int, most: int = 40, step: int = 7) -> list[list[Given]]:
    """Points of a few GPUs, each a list of readings: any order, no two of one GPU and time. A GPU may move between hosts."""
    moments = st.integers(0, minutes * 60 // step - 1)
    where = draw(st.lists(st.tuples(_WHOSE, moments), max_size=most, unique=True))
    found = []
    for (uuid, mig_id), moment in where:
        of = gpu(uuid, mig_id, host=draw(st.sampled_from((0, 0, 0, 1))), model="B" if uuid == "W" else "A")
        values = draw(st.dictionaries(st.sampled_from(NAMES), _VALUES, min_size=1))
        found.append([Given(of, name, moment * step * SECOND, value) for name, value in values.items()])
    return found


def arrays(readings: Iterable[Given], name: str) -> ReadingArrays:
    """The readings of one metric as stores give them."""
    places: dict[ReadingSource, int] = {}
    rows = []
    for each in readings:
        if each.name == name:
            source = ReadingSource(each.gpu.uuid, each.gpu.mig_id, each.gpu.hostname, each.gpu.model_name)
            rows.append((places.setdefault(source, len(places)), each.time_ns, each.value))
    return columns_of(list(places), rows)


def partials(readings: Sequence[Given], *edges_ns: int) -> SourcePartials:
    """The partials of a window between the first and the last of these times, given in parts that the others separate."""
    start_ns, end_ns = edges_ns[0], edges_ns[-1]
    before: dict[str, dict[str, float]] = defaultdict(dict)
    for each in sorted(readings, key=lambda each: each.time_ns):
        if each.time_ns < start_ns:
            before[each.name][each.gpu.id] = each.value
    parts = {
        name: [
            arrays([each for each in readings if low <= each.time_ns < high], name) for low, high in pairwise(edges_ns)
        ]
        for name in NAMES
    }
    return SourcePartials.of(start_ns, end_ns, parts, before)


def flat(found: Iterable[Sequence[Given]]) -> list[Given]:
    """The readings of points."""
    return [reading for point in found for reading in point]
