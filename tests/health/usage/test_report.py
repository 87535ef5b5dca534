"""Answers about usage, against sums of what a plain reckoning counted."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from health.models import UsagePeriod, WatchState
from health.usage.packing import FIGURES, FREE, HOUR_NS, BoardPlace, Figure, Holder, Period, pack
from health.usage.report import UsageBy, UsageQuestion, UsageReport, usage_report
from health.usage.rows import RowSums, UsageRow, sum_exactly
from inventory.models import GPU, AssetState, Host
from readings.model import Gpu
from readings.times import to_datetime
from tests.health.usage.filling import Watched, add_to_inventory
from tests.health.usage.reckoning import HOUR, LIMIT, POWER, SECOND, SM, UTIL, Cells, Reckoning
from tests.health.usage.test_meter import gpu_of

pytestmark = pytest.mark.django_db

MINUTE = 60 * SECOND
DAY = 24 * HOUR
START = 500_000 // 24 * DAY + 5 * HOUR + 7 * MINUTE


class Recorded(Watched):
    """Counts in Python too."""

    def __init__(self) -> None:
        super().__init__()
        self.reckoning = Reckoning()
        take = self.meter.take

        def take_both(arrivals: Any, registry: Any) -> None:
            self.reckoning.take(arrivals, registry)
            take(arrivals, registry)

        self.meter.take = take_both  # type: ignore[method-assign]


class Filled(NamedTuple):
    """What a fleet left in the database, what it comes to, each GPU's first sample, and the end."""

    periods: list[UsagePeriod]
    state: WatchState
    cells: Cells
    first: dict[str, int]
    end: int


_kept: dict[float, Filled] = {}


def fill(days: float) -> Filled:
    """Eight GPUs of two hosts and models for some days, with pods that come and go, and gaps."""
    filled = _kept.get(days)
    if filled is None:
        filled = _kept[days] = run_fleet(days)
    else:
        add_to_inventory(gpus_of_fleet(), START)
        UsagePeriod.objects.bulk_create(filled.periods)
        filled.state.save(force_insert=True)
    return filled


def gpus_of_fleet() -> list[Gpu]:
    return [gpu_of(number, model_name="H100" if number % 2 else "A100") for number in range(8)]


def run_fleet(days: float) -> Filled:
    rng = random.Random(7)
    watched, end = Recorded(), START + int(days * DAY)
    gpus = gpus_of_fleet()
    add_to_inventory(gpus, START)
    pods = [("ml", "a"), ("ml", "b"), ("web", "a"), ("", "")]
    owner = [rng.choice(pods) for _ in gpus]
    for time in range(START, end, 10 * MINUTE):
        points = []
        for at in range(len(gpus)):
            if rng.random() < 0.02:
                owner[at] = rng.choice(pods)
            if rng.random() < 0.05 or (at == 3 and time < START + DAY // 2) or (at == 4 and time % DAY < DAY // 4):
                continue
            namespace, pod = owner[at]
            gpu = gpu_of(at, model_name=gpus[at].model_name, namespace=namespace, pod=pod)
            values = {UTIL: rng.choice((0.0, 3.0, 50.0)), SM: 0.3, POWER: 300.0, LIMIT: 700.0}
            points.append((gpu, time, values))
        watched.send(points)
        if rng.random() < 0.1:
            watched.commit(time)
    watched.commit(end)
    first = {board.place.uuid: board.first_ns for board in watched.meter.boards()}
    return Filled(list(UsagePeriod.objects.all()), WatchState.objects.get(pk=1), watched.reckoning.cells(), first, end)


def ask(start: int, end: int, now: int, by: UsageBy = "namespace", **fields: Any) -> UsageReport:
    return usage_report(UsageQuestion(start, end, by=by, **fields), now)


NAMES: dict[str, Callable[[tuple[str, str, str], Any], tuple[str, ...]]] = {
    "gpu": lambda place, holder: (place[0],),
    "host": lambda place, holder: (place[1],),
    "model": lambda place, holder: (place[2],),
    "namespace": lambda place, holder: ("",) if isinstance(holder, int) else holder[:1],
    "pod": lambda place, holder: ("", "") if isinstance(holder, int) else holder,
}


@pytest.mark.parametrize("per_day", [False, True])
@pytest.mark.parametrize("by", NAMES)
def test_groups_are_the_sums_of_what_was_counted(by: UsageBy, per_day: bool) -> None:
    filled = fill(11)
    end = filled.end
    report = ask(START - DAY, end, end, by, per_day=per_day)
    assert UsagePeriod.objects.filter(hours=24).exists()
    held: dict[Any, list[int]] = defaultdict(lambda: [0] * FIGURES)
    free: dict[Any, list[int]] = defaultdict(lambda: [0] * FIGURES)
    for (hour, place, holder), figures in filled.cells.items():
        key = NAMES[by](place, holder), hour // 24 * DAY if per_day else None
        sums = (free if isinstance(holder, int) else held)[key]
        sums[:] = [x + y for x, y in zip(sums, figures, strict=True)]
    got = {(row.group, row.day_ns): row for row in report.rows}
    for key, row in got.items():
        assert list(row.held) == held.pop(key, [0] * FIGURES)
        both = [x + y for x, y in zip(row.free, row.gap, strict=True)]
        assert both == free.pop(key, [0] * FIGURES)
    assert not held
    assert not free


@pytest.mark.parametrize("per_day", [False, True])
@pytest.mark.parametrize("by", NAMES)
def test_held_free_and_unknown_time_are_all_the_time(by: UsageBy, per_day: bool) -> None:
    filled = fill(11)
    now = filled.end + 3 * MINUTE + 1
    report = ask(START - DAY, now, now, by, per_day=per_day)
    assert report.end_ns == now
    assert report.total.total_ns == sum(now - time for time in filled.first.values())
    assert report.is_exact
    assert sum(row.total_ns for row in report.rows) == report.total.total_ns
    assert report.total.unknown_ns > 0
    assert report.total.gpus == 8
    if by not in ("namespace", "pod"):
        assert all(row.coverage == row.known_ns / row.total_ns for row in report.rows if row.total_ns)


def test_ranges_are_whole_hours_or_days_and_may_end_now() -> None:
    end = fill(11).end
    now = end + 5 * MINUTE
    hours = ask(end - 3 * HOUR - 1, now - HOUR, now)
    assert (hours.start_ns % HOUR, hours.end_ns % HOUR) == (0, 0)
    assert hours.start_ns == (end - 3 * HOUR - 1) // HOUR * HOUR
    assert hours.end_ns == -(-(now - HOUR) // HOUR) * HOUR
    assert ask(end - 3 * HOUR, now + DAY, now).end_ns == now
    folded = ask(START + DAY // 2, START + DAY, now)
    assert (folded.start_ns % DAY, folded.end_ns % DAY) == (0, 0)
    assert folded.is_exact
    assert (ask(now + DAY, now + 2 * DAY, now).rows, ask(0, DAY, now).total.total_ns) == ([], 0)


@pytest.mark.parametrize("per_day", [False, True])
@pytest.mark.parametrize("start", [-(2**63), -1, 0, START, 2**63 - 1])
@pytest.mark.parametrize("end", [-(2**63), 0, START + DAY, 2**63 - 1])
def test_any_time_that_64_bits_hold_may_be_asked_for(start: int, end: int, per_day: bool) -> None:
    now = fill(1).end
    report = ask(start, end, now, "gpu", per_day=per_day)
    assert report.is_exact
    assert (report.total.total_ns > 0) == (start < now <= end)


def test_parts_of_a_range_add_up_to_the_whole() -> None:
    end = fill(3).end
    now = end + MINUTE
    whole = ask(START - DAY, now, now).total
    middle = (START + DAY) // HOUR * HOUR
    parts = [ask(START - DAY, middle, now).total, ask(middle, now, now).total]
    assert list(whole.held) == [sum(column) for column in zip(*(part.held for part in parts), strict=True)]
    assert list(whole.free) == [sum(column) for column in zip(*(part.free for part in parts), strict=True)]
    assert whole.unknown_ns == sum(part.unknown_ns for part in parts)


def test_filters_leave_the_rest_out() -> None:
    end = fill(3).end
    now = end
    everything = {row.group[0]: row for row in ask(0, now, now, "host").rows}
    one = ask(0, now, now, "host", hostnames=["node-1"])
    assert [row.group for row in one.rows] == [("node-1",)]
    assert one.total.total_ns == everything["node-1"].total_ns
    assert one.is_exact
    assert ask(0, now, now, "model", models=["A100"]).total.gpus == 4
    spaces = {row.group: row for row in ask(0, now, now, "pod").rows}
    ml = ask(0, now, now, "pod", namespaces=["ml"])
    assert {row.group for row in ml.rows} == {("ml", "a"), ("ml", "b")}
    assert all(list(row.held) == list(spaces[row.group].held) for row in ml.rows)
    assert (ml.total.unknown_ns, ml.total.free[Figure.KNOWN]) == (0, 0)
    both = ask(0, now, now, "pod", namespaces=["ml"], pods=["a"])
    assert both.total.held[Figure.KNOWN] == spaces["ml", "a"].held[Figure.KNOWN]
    assert ask(0, now, now, "pod", pods=["nobody"]).rows == []


def test_the_most_idle_comes_first() -> None:
    end = fill(3).end
    idle = [row.held[Figure.IDLE] for row in ask(0, end, end, "pod").rows]
    assert idle == sorted(idle, reverse=True)
    assert idle[0] > 0


def test_a_holders_coverage_is_that_of_the_gpus_it_held() -> None:
    watched = Watched()
    whole, gappy = gpu_of(1, namespace="ml", pod="whole"), gpu_of(2, namespace="ml", pod="gappy")
    start = START // HOUR * HOUR
    for minute in range(0, 121):
        points: list[tuple[Gpu, int, dict[str, float]]] = [(whole, start + minute * MINUTE, {UTIL: 1.0})]
        if minute % 60 <= 27 or minute == 120:
            points.append((gappy, start + minute * MINUTE, {UTIL: 1.0}))
        watched.send(points)
    watched.commit(start + 2 * HOUR)
    add_to_inventory([whole, gappy], start)
    rows = {row.group[1]: row for row in ask(start, start + 2 * HOUR, start + 2 * HOUR, "pod").rows}
    assert rows["whole"].coverage == 1.0
    assert rows["gappy"].coverage == pytest.approx(0.5)
    total = ask(start, start + 2 * HOUR, start + 2 * HOUR, "pod", pods=["gappy"]).total
    assert total.coverage == pytest.approx(0.5)


@pytest.mark.parametrize("how", ["retired", "host retired", "taken out", "replaced"])
def test_what_is_no_part_of_the_fleet_counts_until_its_last_sample(how: str) -> None:
    watched = Watched()
    gone, stays = gpu_of(1), gpu_of(3)
    for minute in range(60):
        watched.send([(gone, START + minute * MINUTE, {UTIL: 0.0}), (stays, START + minute * MINUTE, {UTIL: 0.0})])
    watched.commit(START + HOUR)
    add_to_inventory([gone, stays], START)
    now = START + DAY
    before = {row.group[0]: row for row in ask(0, now, now, "gpu").rows}
    assert before["GPU-1"].total_ns == before["GPU-3"].total_ns == DAY
    match how:
        case "retired":
            GPU.objects.filter(pk="GPU-1").update(asset_state=AssetState.RETIRED)
        case "host retired":
            other = Host.objects.create(name="other", first_seen=to_datetime(START), last_seen=to_datetime(START))
            GPU.objects.filter(pk="GPU-3").update(host=other)
            Host.objects.filter(name="node-1").update(asset_state=AssetState.RETIRED)
        case "taken out":
            GPU.objects.filter(pk="GPU-1").delete()
        case "replaced":
            GPU.objects.filter(pk="GPU-3").update(index=1, last_seen=to_datetime(now))
    after = {row.group[0]: row for row in ask(0, now, now, "gpu").rows}
    assert after["GPU-1"].total_ns == 59 * MINUTE
    assert after["GPU-1"].unknown_ns == 0
    assert after["GPU-3"].total_ns == DAY


def test_groups_by_what_people_noted() -> None:
    end = fill(1).end
    Host.objects.filter(name="node-0").update(owner="ann", tags={"team": "red"})
    GPU.objects.filter(pk="GPU-2").update(tags={"team": "blue"}, owner="bob")
    teams = {row.group[0]: row for row in ask(0, end, end, "tag", tag="team").rows}
    assert {name: row.gpus for name, row in teams.items()} == {"red": 3, "blue": 1, "": 4}
    owners = {row.group[0]: row.gpus for row in ask(0, end, end, "owner").rows}
    assert owners == {"ann": 3, "bob": 1, "": 4}


def test_a_gpu_that_moved_is_counted_once() -> None:
    watched = Watched()
    here, there = gpu_of(1, hostname="here"), gpu_of(1, hostname="there")
    for minute in range(120):
        watched.send([(here if minute < 60 else there, START + minute * MINUTE, {UTIL: 0.0})])
    watched.commit(START + 2 * HOUR)
    add_to_inventory([there], START)
    now = START + 3 * HOUR
    report = ask(0, now, now, "host")
    rows = {row.group[0]: row for row in report.rows}
    assert rows["here"].known_ns == HOUR
    assert rows["there"].known_ns == HOUR - MINUTE
    assert rows["there"].unknown_ns == HOUR + MINUTE
    assert (report.total.gpus, report.is_exact) == (1, True)
    only = ask(0, now, now, "host", hostnames=["here"])
    assert (only.total.total_ns, only.is_exact) == (HOUR, True)


def test_sums_may_be_larger_than_64_bits() -> None:
    hours, gpus = 24, 2000
    figures = np.full((FIGURES, gpus), 2**62, np.int64)
    period = Period(
        START // DAY * DAY,
        hours,
        tuple(BoardPlace(f"GPU-{number}", "node", "H100") for number in range(gpus)),
        np.full(gpus, 1),
        np.full(gpus, START),
        (Holder("ml", "a"),),
        np.arange(gpus, dtype=np.int32),
        np.where(np.arange(gpus) % 2, 0, FREE).astype(np.int32),
        figures,
    )
    UsagePeriod.objects.create(start=to_datetime(period.start_ns), hours=hours, data=pack(period))
    report = ask(0, START + DAY, START + DAY)
    assert report.total.held[Figure.COUNTED_MJ] == 1000 * 2**62
    assert sum_exactly(figures[0]) == gpus * 2**62


def test_an_hour_that_is_handed_over_is_in_one_place() -> None:
    end = fill(1).end
    before = ask(0, end, end).total
    watched = Watched()
    watched.restart()
    watched.send([(gpu_of(99), end + DAY, {UTIL: 0.0})])
    watched.commit(end + DAY)
    assert list(ask(0, end, end).total.held) == list(before.held)


def test_a_meter_that_cannot_be_read_costs_the_newest_hours_alone() -> None:
    end = fill(1).end
    before = ask(0, end, end).total
    WatchState.objects.update(usage=b"nonsense")
    assert 0 < ask(0, end, end).total.known_ns < before.known_ns


def test_without_anything_the_answer_is_empty() -> None:
    report = ask(START, START + HOUR_NS, START + DAY)
    assert (report.rows, report.total.total_ns, report.is_exact, report.newest_ns) == ([], 0, True, 0)
    assert report.total.coverage is None
    assert UsageRow(()).power_utilisation is None
    assert RowSums([], 0).all(of_holders=False) == []


def test_one_question_is_a_handful_of_queries(django_assert_max_num_queries: Any) -> None:
    end = fill(1).end
    with django_assert_max_num_queries(6):
        ask(0, end, end, "pod")
