"""What ``series()`` has to answer, worked out in the plainest way from the readings one by one."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from readings.mig import how_parts_combine
from readings.model import Gpu
from stores.base import PodAssignment, SeriesQuery

Readings = dict[tuple[int, int], float]  # (place among the GPUs, time): value
_Board = tuple[tuple[str, ...], str]  # group, board


class Taken(NamedTuple):
    """A reading that a query asks for: whose it is in which group, when, and how much."""

    group: tuple[str, ...]
    board: str
    part: str
    time_ns: int
    value: float


def expected(query: SeriesQuery, gpus: Sequence[Gpu], readings: Readings) -> dict[tuple[str, ...], list[float | None]]:
    """The groups and their windows."""
    taken = _taken(query, gpus, readings)
    first = query.buckets.start_ns // query.buckets.every_ns
    windows = -(-query.buckets.end_ns // query.buckets.every_ns) - first
    found: dict[tuple[str, ...], list[float | None]] = {
        each.group: [None] * windows for each in sorted(taken, key=lambda each: each.group)
    }
    for group, values in found.items():
        for place in range(windows):
            inside = [
                each
                for each in taken
                if each.group == group and each.time_ns // query.buckets.every_ns - first == place
            ]
            values[place] = told(query, inside)
    return found


def told(query: SeriesQuery, inside: Sequence[Taken]) -> float | None:
    """One group's value in one window."""
    combination = how_parts_combine(query.metric_name)
    kept: list[Taken] = []
    boards: dict[str, dict[str, list[Taken]]] = defaultdict(lambda: defaultdict(list))
    for each in inside:
        boards[each.board][each.part].append(each)
    for parts in boards.values():
        if "" in parts and len(parts) > 1:
            for part in [part for part in parts if part]:
                del parts[part]
        if combination == "once" and len(parts) > 1:
            best = max(fmean(each.value for each in of) for of in parts.values())
            chosen = min(part for part, of in parts.items() if fmean(each.value for each in of) == best)
            for part in [part for part in parts if part != chosen]:
                del parts[part]
        kept += [each for of in parts.values() for each in of]
    if not kept:
        return None
    values = sorted(each.value for each in kept)
    match query.aggregate:
        case "mean":
            return math.fsum(values) / len(values)
        case "max":
            return values[-1]
        case "min":
            return values[0]
        case "count":
            return float(len(values))
        case "increase":
            return math.fsum(values)
        case "last":
            return max((each.time_ns, each.value) for each in kept)[1]
        case "sum":
            combine = fmean if combination == "average" else math.fsum
            return math.fsum(
                combine([fmean(each.value for each in of) for of in parts.values()]) for parts in boards.values()
            )
    return values[math.floor(len(values) * int(query.aggregate[1:]) / 100 + 0.5) - 1]


def _taken(query: SeriesQuery, gpus: Sequence[Gpu], readings: Readings) -> list[Taken]:
    readings = {key: value for key, value in readings.items() if _passes(query, gpus[key[0]], key[1])}
    if query.aggregate == "increase":
        readings = increases_of(gpus, readings)
    taken: list[Taken] = []
    folded: dict[tuple[tuple[str, ...], str, str, int], list[float]] = defaultdict(list)
    shared_at = {(gpus[place].id, time_ns) for place, time_ns in readings if gpus[place].share}
    for (place, time_ns), value in readings.items():
        gpu = gpus[place]
        alone = query.mig or gpu.id in query.gpus
        board, part = (gpu.id, "") if alone else (gpu.uuid, gpu.mig_id)
        if query.assignments is None:
            if not gpu.share:
                taken.append(Taken(_group(query, gpu, None, board), board, part, time_ns, value))
            continue
        pod = _holder(query.assignments, gpu, time_ns)
        if (
            pod is None
            or (not gpu.share and (gpu.id, time_ns) in shared_at)
            or (query.namespaces and pod[0] not in query.namespaces)
            or (query.pods and pod[1] not in query.pods)
        ):
            continue
        group = _group(query, gpu, pod, board)
        if gpu.share:
            folded[group, board, part, time_ns].append(value)
        else:
            taken.append(Taken(group, board, part, time_ns, value))
    combination = how_parts_combine(query.metric_name)
    for key, values in folded.items():
        value = (
            max(values) if combination == "once" else fmean(values) if combination == "average" else math.fsum(values)
        )
        taken.append(Taken(*key, value))
    return taken


def _passes(query: SeriesQuery, gpu: Gpu, time_ns: int) -> bool:
    return (
        query.buckets.start_ns <= time_ns < query.buckets.end_ns
        and (not query.gpus or gpu.id in query.gpus or gpu.uuid in query.gpus)
        and (not query.hostnames or gpu.hostname in query.hostnames)
        and (not query.models or gpu.model_name in query.models)
    )


def _holder(assignments: Sequence[PodAssignment], gpu: Gpu, time_ns: int) -> tuple[str, str, str] | None:
    mine = [each for each in assignments if each.gpu == gpu.id]
    if gpu.share:
        return (gpu.namespace, gpu.pod, gpu.container) if mine else None
    there = [each for each in mine if each.start_ns <= time_ns and (each.end_ns is None or time_ns < each.end_ns)]
    if not there:
        return None
    latest = max(there, key=lambda each: (each.start_ns, each[1:4]))
    return latest[1:4]


def _group(query: SeriesQuery, gpu: Gpu, pod: tuple[str, str, str] | None, board: str) -> tuple[str, ...]:
    return {
        None: (),
        "gpu": (board,),
        "host": (gpu.hostname,),
        "model": (gpu.model_name,),
        "namespace": (pod[0] if pod else "",),
        "pod": pod[:2] if pod else ("", ""),
    }[query.by]


def increases_of(gpus: Sequence[Gpu], readings: Readings) -> Readings:
    of: dict[tuple[str, ...], list[tuple[int, float, int]]] = defaultdict(list)
    for (place, time_ns), value in readings.items():
        gpu = gpus[place]
        key = (gpu.id, *((gpu.namespace, gpu.pod, gpu.container) if gpu.share else ()))
        of[key].append((time_ns, value, place))
    grown: Readings = {}
    for found in of.values():
        found.sort()
        for (_, before, _), (time_ns, value, place) in itertools.pairwise(found):
            grown[place, time_ns] = value if value < before else value - before
    return grown
