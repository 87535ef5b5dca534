"""Windows of a metric by group: every store against the plainest way to work them out."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, get_args

import msgspec
import pytest

from readings.model import Gpu, Point, PointBlock
from stores.aggregate import aggregator
from stores.aggregate.buckets import Buckets
from stores.aggregate.limits import limits_of
from stores.base import Aggregate, By, GroupSeries, PodAssignment, SeriesQuery, Store, TooBusy, TooMuch
from tests.stores.expecting import Readings, expected
from tests.stores.making import MINUTE, SECOND, START, UTIL, fleet, gpu, one, several

FB_USED, POWER, ENERGY = "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
METRICS = (UTIL, FB_USED, POWER, ENERGY, "not_in_the_catalogue")
AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)
GROUPS: tuple[By | None, ...] = (None, *get_args(By))
END = START + 10 * MINUTE

Occupied = tuple[PodAssignment, ...]


def ask(
    store: Store, *, every_ns: int = MINUTE, start_ns: int = START // MINUTE * MINUTE, end_ns: int = END, **query: Any
) -> dict[tuple[str, ...], list[float | None]]:
    """The answer of series(), by default over ten minutes in windows of one."""
    buckets = Buckets(start_ns, end_ns, every_ns)
    asked: dict[str, Any] = {"metric_name": UTIL, "buckets": buckets} | query
    return dict(store.series(SeriesQuery(**asked)))


def small_memory(monkeypatch: pytest.MonkeyPatch, **limits: int) -> None:
    """Lets a question have no more than this at once."""
    for module in ("aggregate.aggregator", "aggregate.passes", "influxdb.series"):
        monkeypatch.setattr(f"stores.{module}.limits_of", lambda memory: limits_of(memory)._replace(**limits))


def in_one_window(query: SeriesQuery, **changes: Any) -> SeriesQuery:
    """The same query with the whole range as one window."""
    return replace(query, buckets=replace(query.buckets, every_ns=1 << 62), **changes)


def awkward_fleet() -> tuple[list[Gpu], Occupied]:
    """GPUs that stay, move, are cut into instances and are shared, and what ran on them."""
    plain = [gpu(number, model_name="A" if number % 3 else "B") for number in (1, 2, 9)]
    moved = [gpu(3, hostname="host-000"), gpu(3, hostname="host-001", gpu_id=6, model_name="A")]
    cut = [gpu(12), *(gpu(12, mig_id=str(number)) for number in range(3)), gpu(13, mig_id="0"), gpu(13, mig_id="1")]
    pods = [("ml", "train-1", "main"), ("ml", "train-2", "main"), ("ml", "train-2", "side"), ("web", "serve", "main")]
    shared = [gpu(20), *(_held(gpu(20, share=True), *pod) for pod in pods)]
    occupied = (
        PodAssignment("GPU-0001", "ml", "train-1", "main", START - MINUTE, None),
        PodAssignment("GPU-0002", "ml", "train-2", "main", START + MINUTE, START + 4 * MINUTE),
        PodAssignment("GPU-0002", "web", "serve", "main", START + 2 * MINUTE, START + 3 * MINUTE),
        PodAssignment("GPU-0003", "web", "serve", "main", START, START + 7 * MINUTE),
        PodAssignment("GPU-0012:1", "ml", "train-9", "main", START, None),
        PodAssignment("GPU-0013:0", "ml", "train-9", "main", START, None),
        *(PodAssignment("GPU-0020", *pod, START + 5 * MINUTE, None) for pod in pods),
    )
    return [*plain, *moved, *cut, *shared], occupied


def _held(of: Gpu, namespace: str, pod: str, container: str) -> Gpu:
    return msgspec.structs.replace(of, namespace=namespace, pod=pod, container=container)


def random_readings(gpus: list[Gpu], seed: int, count: int = 900) -> dict[str, Readings]:
    """Readings of each metric at times of which many coincide; counters now and then begin again."""
    chance = random.Random(seed)
    found: dict[str, Readings] = {metric: {} for metric in METRICS}
    for number in range(count):
        place = chance.randrange(len(gpus))
        time_ns = START + chance.randrange(600) * SECOND + chance.choice((0, 0, 0, 1, 999_999_999))
        if not _is_there(gpus[place], time_ns):
            continue
        for metric in chance.sample(METRICS, 3):
            value = float(number * 1000 % 77_777) if metric == ENERGY else round(chance.uniform(0, 100), 3)
            found[metric][place, time_ns] = value
    return found


def _is_there(of: Gpu, time_ns: int) -> bool:
    minute = (time_ns - START) // MINUTE
    if of.uuid == "GPU-0003":  # it moves in the middle
        return (of.hostname == "host-000") == (time_ns < START + 5 * MINUTE + 30 * SECOND)
    if of.id == "GPU-0012":  # the board's own readings come and go
        return minute % 3 == 0
    if of.share:
        return minute >= 5
    return minute != 7 or of.uuid != "GPU-0009"


def write(store: Store, gpus: list[Gpu], readings: dict[str, Readings]) -> None:
    points: dict[tuple[int, int], dict[str, float]] = {}
    for metric, found in readings.items():
        for key, value in found.items():
            points.setdefault(key, {})[metric] = value
    rows: list[Point] = [
        (place, time_ns, [values.get(name) for name in METRICS]) for (place, time_ns), values in points.items()
    ]
    store.write([PointBlock(gpus, list(METRICS), rows)])


def check(found: list[GroupSeries], query: SeriesQuery, gpus: list[Gpu], readings: Readings) -> None:
    answer = expected(query, gpus, readings)
    assert [each.group for each in found] == list(answer)
    for group, values in found:
        for value, other in zip(values, answer[group], strict=True):
            assert value == (None if other is None else pytest.approx(other, rel=1e-11)), (query, group)


def _by_value(found: GroupSeries) -> tuple[float, tuple[str, ...]]:
    return -(found.values[0] or 0.0), found.group


def every_question(occupied: Occupied) -> list[SeriesQuery]:
    """Each aggregate by each group, over ranges that begin and end within windows, with some filter or other."""
    chance = random.Random(11)
    filters: list[dict[str, Any]] = [
        {}, {}, {"hostnames": ("host-001",)}, {"models": ("A",)}, {"gpus": ("GPU-0012", "GPU-0001")},
        {"gpus": ("GPU-0013:1", "GPU-0003")}, {"hostnames": ("host-000", "host-002"), "models": ("A", "NVIDIA H100 80GB HBM3")},
    ]  # fmt: skip
    pods: list[dict[str, Any]] = [
        {},
        {"namespaces": ("ml",)},
        {"pods": ("serve", "train-9")},
        {"namespaces": ("ml",), "pods": ("train-2",)},
    ]
    questions = []
    for aggregate in AGGREGATES:
        for by in GROUPS:
            for metric in METRICS:
                about_pods = by in {"namespace", "pod"} or chance.random() < 0.3
                questions.append(
                    SeriesQuery(
                        metric_name=metric,
                        aggregate=aggregate,
                        by=by,
                        buckets=Buckets(
                            every_ns=chance.choice((7 * SECOND, MINUTE, 4 * MINUTE, 3600 * SECOND)),
                            start_ns=START + chance.randrange(200) * SECOND + chance.choice((0, 1)),
                            end_ns=END - chance.randrange(200) * SECOND,
                        ),
                        mig=by == "gpu" and chance.random() < 0.5,
                        assignments=occupied if about_pods else None,
                        **chance.choice(filters),
                        **(chance.choice(pods) if about_pods else {}),
                    )
                )
    return questions


class TestEveryStore:
    def test_every_aggregate_by_every_group_is_as_worked_out_one_by_one(self, store: Store) -> None:
        gpus, occupied = awkward_fleet()
        readings = random_readings(gpus, 1)
        write(store, gpus, readings)
        questions = every_question(occupied)
        assert len(questions) == 300
        for query in questions:
            check(store.series(query), query, gpus, readings[query.metric_name])

    def test_so_is_a_fleet_that_is_neither_cut_nor_shared(self, store: Store) -> None:
        gpus, _ = awkward_fleet()
        gpus = [of for of in gpus if not of.mig_id and not of.share]
        readings = random_readings(gpus, 5)
        write(store, gpus, readings)
        for query in every_question(()):
            if query.assignments is None:
                check(store.series(query), query, gpus, readings[query.metric_name])
                top = in_one_window(query, top=2)
                assert store.series(top) == sorted(store.series(replace(top, top=None)), key=_by_value)[:2]

    def test_batch_by_batch_is_as_all_at_once(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        small_memory(monkeypatch, readings=40)
        monkeypatch.setattr("stores.influxdb.series.FIRST_RANGE_NS", 7 * SECOND)
        monkeypatch.setattr("stores.influxdb.series._LONGEST_BATCH_NS", 100 * SECOND)
        gpus, occupied = awkward_fleet()
        readings = random_readings(gpus, 2)
        write(store, gpus, readings)
        for query in every_question(occupied)[::3]:
            check(store.series(query), query, gpus, readings[query.metric_name])

    def test_a_window_that_does_not_fit_into_memory_is_as_one_that_does(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gpus, occupied = awkward_fleet()
        readings = random_readings(gpus, 6)
        write(store, gpus, readings)
        questions = [query for query in every_question(occupied) if query.aggregate not in {"mean", "count"}][1::3]
        small_memory(monkeypatch, readings=25, distinct=14)
        for query in questions:
            check(store.series(query), query, gpus, readings[query.metric_name])
            whole = in_one_window(query)
            answer = store.series(whole)
            check(answer, whole, gpus, readings[query.metric_name])
            assert store.series(replace(whole, top=2)) == sorted(answer, key=_by_value)[:2]

    @pytest.mark.parametrize("aggregate", AGGREGATES)
    def test_the_largest_are_found_in_little_memory(
        self, store: Store, monkeypatch: pytest.MonkeyPatch, aggregate: Aggregate
    ) -> None:
        gpus, _ = awkward_fleet()
        readings = random_readings(gpus, 8)
        write(store, gpus, readings)
        query = SeriesQuery(
            metric_name=ENERGY if aggregate == "increase" else POWER, aggregate=aggregate, by="host",
            buckets=Buckets(START, END, MINUTE), top=2,
        )  # fmt: skip
        answer = store.series(query)
        small_memory(monkeypatch, readings=60, distinct=12)
        assert store.series(query) == answer

    @pytest.mark.parametrize("aggregate", AGGREGATES)
    def test_the_largest_over_the_whole_range_come_first(self, store: Store, aggregate: Aggregate) -> None:
        gpus, occupied = awkward_fleet()
        # Whether a board's own readings or its instances' count is decided window by window.
        gpus = [of for of in gpus if of.id != "GPU-0012"]
        readings = random_readings(gpus, 3)
        write(store, gpus, readings)
        for by in GROUPS[1:]:
            query = SeriesQuery(
                metric_name=ENERGY if aggregate == "increase" else FB_USED, aggregate=aggregate, by=by,
                buckets=Buckets(START, END, MINUTE), assignments=occupied if by in {"namespace", "pod"} else None,
            )  # fmt: skip
            whole = {group: values[0] or 0.0 for group, values in store.series(in_one_window(query))}
            ranked = sorted(whole, key=lambda group: (-whole[group], group))
            everything = dict(store.series(query))
            for top in (1, 3, 100):
                found = store.series(replace(query, top=top))
                assert [each.group for each in found] == ranked[:top]
                assert all(values == everything[group] for group, values in found)

    def test_windows_are_aligned_and_those_without_a_reading_are_none(self, store: Store) -> None:
        at = START // MINUTE * MINUTE  # :42:00
        store.write([several(gpu(), [(at + 59 * SECOND, 1.0), (at + 60 * SECOND, 2.0), (at + 200 * SECOND, 4.0)])])
        assert ask(store, start_ns=at + 30 * SECOND, end_ns=at + 5 * MINUTE) == {(): [1.0, 2.0, None, 4.0, None]}
        assert ask(store, start_ns=at + 60 * SECOND, end_ns=at + 200 * SECOND) == {(): [2.0, None, None]}

    def test_nothing_is_no_group(self, store: Store) -> None:
        assert ask(store) == {}
        store.write([one(gpu(), START, U=1.0)])
        for query in ({}, {"metric_name": "time"}, {"gpus": ("",)}, {"metric_name": "U", "gpus": ("GPU-1",)},
                      {"metric_name": "U", "hostnames": ("\ud800",)}, {"metric_name": "U", "start_ns": START + 1}):  # fmt: skip
            assert ask(store, **query) == {}, query
        assert ask(store, metric_name="U", by="pod", assignments=()) == {}

    def test_a_board_whose_instances_repeat_its_power_counts_once(self, store: Store) -> None:
        store.write([fleet([gpu(0, mig_id=str(number)) for number in range(7)], START, (POWER, FB_USED, UTIL))])
        power = PointBlock(
            [gpu(0, mig_id=str(number)) for number in range(7)], [POWER], [(n, START, [300.0]) for n in range(7)]
        )
        store.write([power])
        assert ask(store, metric_name=POWER, aggregate="sum", by="host")[("host-000",)][0] == 300.0
        assert ask(store, metric_name=POWER, aggregate="count")[()][0] == 1.0
        memory = ask(store, metric_name=FB_USED, aggregate="sum")[()][0]
        assert memory == sum(place * 100.0 + 1 for place in range(7))
        # Shares of time do not add up: the board is as busy as its instances are on average.
        assert ask(store, metric_name=UTIL, aggregate="sum")[()][0] == 302.0

    def test_pods_that_share_a_gpu_are_not_counted_with_it(self, store: Store) -> None:
        store.write([one(gpu(), START, **{FB_USED: 60_000.0})])
        held = [_held(gpu(share=True), "ml", pod, "main") for pod in "ab"]
        store.write([PointBlock(held, [FB_USED], [(0, START, [40_000.0]), (1, START, [20_000.0])])])
        assert ask(store, metric_name=FB_USED, aggregate="sum")[()][0] == 60_000.0
        occupied = tuple(PodAssignment("GPU-0000", "ml", pod, "main", START, None) for pod in "ab")
        by_pod = ask(store, metric_name=FB_USED, aggregate="sum", by="pod", assignments=occupied)
        assert {group: values[0] for group, values in by_pod.items()} == {("ml", "a"): 40_000.0, ("ml", "b"): 20_000.0}
        by_namespace = ask(store, metric_name=FB_USED, aggregate="sum", by="namespace", assignments=occupied)
        assert by_namespace[("ml",)][0] == 60_000.0

    def test_a_counter_that_began_again_never_grew_less_than_nothing(self, store: Store) -> None:
        values = [9.1e11, 9.2e11, 4.0e5, 5.0e5]
        store.write([several(gpu(), [(START + i * MINUTE, value) for i, value in enumerate(values)], ENERGY)])
        grown = ask(store, metric_name=ENERGY, aggregate="increase")[()]
        assert grown[:5] == [None, 1.0e10, 4.0e5, 1.0e5, None]

    @pytest.mark.parametrize("largest_first", [True, False])
    def test_of_equally_new_readings_the_largest_is_the_last(self, store: Store, largest_first: bool) -> None:
        values = sorted([3.0, 1.0, 2.0], reverse=largest_first)
        for place, value in enumerate(values):
            store.write([several(gpu(place), [(START, 9.0), (START + 1, value)])])
        assert ask(store, aggregate="last", by="host")[("host-000",)][0] == 3.0
        assert ask(store, aggregate="last", every_ns=1, start_ns=START, end_ns=START + 2) == {(): [9.0, 3.0]}

    def test_a_reading_that_moved_to_another_host_is_counted_there_alone(self, local_store: Store) -> None:
        local_store.write([several(gpu(), [(START, 1.0), (START + 1, 2.0)])])
        local_store.write([several(gpu(hostname="elsewhere"), [(START, 5.0)])])
        assert {group: values[0] for group, values in ask(local_store, by="host").items()} == {
            ("elsewhere",): 5.0,
            ("host-000",): 2.0,
        }
        assert ask(local_store, aggregate="count")[()][0] == 2.0
        assert ask(local_store, aggregate="max", by="gpu")[("GPU-0000",)][0] == 5.0

    def test_more_groups_than_allowed_are_refused_unless_the_largest_are_asked_for(self, store: Store) -> None:
        store.write([fleet([gpu(number) for number in range(5)], START)])
        assert len(ask(store, by="gpu", most_groups=5)) == 5
        with pytest.raises(TooMuch, match="more than 4 groups"):
            ask(store, by="gpu", most_groups=4)
        assert list(ask(store, by="gpu", most_groups=4, top=2)) == [("GPU-0004",), ("GPU-0003",)]
        with pytest.raises(TooMuch, match="more than 4 groups"):
            ask(store, by="gpu", most_groups=4, top=5)

    def test_more_values_than_memory_should_hold_are_refused(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.write([fleet([gpu(number) for number in range(5)], START)])
        assert len(ask(store, by="gpu", top=1)) == 1
        small_memory(monkeypatch, values=40)
        with pytest.raises(TooMuch, match=r"more than 40 values.*QUERY_MEMORY"):
            ask(store, by="gpu", top=1)

    def test_a_heavy_question_is_told_from_a_light_one(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse() -> None:
            raise TooBusy("one at a time")

        store.write([several(gpu(n), [(START + i, float(i)) for i in range(20)]) for n in range(3)])
        question: dict[str, Any] = {"aggregate": "increase", "by": "gpu", "heavy": refuse}
        monkeypatch.setattr("stores.aggregate.passes.LIGHT_READINGS", 60)
        assert len(ask(store, **question)) == 3
        monkeypatch.setattr("stores.aggregate.passes.LIGHT_READINGS", 59)
        with pytest.raises(TooBusy, match="one at a time"):
            ask(store, **question)
        times: list[int] = []
        assert len(ask(store, **question | {"heavy": lambda: times.append(1)})) == 3
        assert times == [1]

    def test_an_answer_that_takes_too_long_is_refused(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        store.write([one(gpu(), START, U=1.0)])
        monkeypatch.setattr(aggregator, "LONGEST_SECONDS", -1.0)
        for aggregate in ("mean", "sum", "p95", "increase"):
            store.write([several(gpu(), [(START, 1.0), (START + 1, 2.0)], "U")])
            with pytest.raises(TooMuch, match="takes longer than"):
                ask(store, metric_name="U", aggregate=aggregate)

    def test_times_and_names_at_the_edge_of_what_there_is(self, store: Store) -> None:
        names = ["'; DROP", '"', "a\\b", "ä=ö,ü", "\n"]
        gpus = [gpu(number, hostname=name, model_name=name) for number, name in enumerate(names)]
        store.write([fleet(gpus, START)])
        assert [group for (group,) in ask(store, by="host")] == sorted(names)
        assert [group for (group,) in ask(store, by="model", models=tuple(names))] == sorted(names)
        edge = {"start_ns": -(1 << 63), "end_ns": (1 << 63) - 1, "every_ns": 366 * 86_400 * SECOND}
        assert sum(value is not None for value in ask(store, aggregate="count", **edge)[()]) == 1


def test_a_question_must_be_about_something() -> None:
    with pytest.raises(ValueError, match="nothing can be"):
        SeriesQuery(metric_name=UTIL, buckets=Buckets(5, 5, 1))
    with pytest.raises(ValueError, match="assignments"):
        SeriesQuery(metric_name=UTIL, buckets=Buckets(5, 6, 1), by="pod")
