"""inventory.queries: lists, filters and the stale rule."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.db.models import TextField
from django.db.models.functions import Cast
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from inventory.models import GPU, Host
from inventory.queries import (
    ages_now,
    count_boards,
    find_gpu,
    fleet_counts,
    gpus_for_list,
    has_moved,
    hosts_between,
    in_state,
    instances_of,
    latest_readings,
    newest_reading,
    parse_moment,
    pods_between,
)
from readings.times import to_datetime
from tests.inventory.building import POWER, SECOND, T0, UTIL, block, fleet, gpu, save

pytestmark = pytest.mark.django_db

MINUTE = 60_000_000_000


@pytest.fixture
def small_fleet(settings: Settings) -> None:
    """Two hosts; GPU-c is stale; GPU-d is cut into two instances; two pods share GPU-b."""
    settings.STALE_AFTER = 300.0
    save(
        block(gpu("GPU-c", hostname="host-2", gpu_id=0, model_name="A100"), -301, {UTIL: 1.0}),
        block(gpu("GPU-a", pod="train-0", namespace="ml"), 0, {UTIL: 1.0}),
        block(gpu("GPU-b", gpu_id=1), -300, {UTIL: 1.0}),
        block(gpu("GPU-b", gpu_id=1, pod="web-1", namespace="shop", share=True), -300, {UTIL: 1.0}),
        block(gpu("GPU-b", gpu_id=1, pod="web-2", namespace="shop", share=True), -300, {UTIL: 1.0}),
        block(gpu("GPU-d", hostname="host-2", gpu_id=1, mig_id="1", pod="mig-1", namespace="ml"), 0, {UTIL: 1.0}),
        block(gpu("GPU-d", hostname="host-2", gpu_id=1, mig_id="2"), 0, {UTIL: 1.0}),
    )


def ids(**filters: Any) -> list[str]:
    return [row.id for row in gpus_for_list(**filters)]


def test_an_empty_inventory_has_no_newest_reading_and_nothing_stale() -> None:
    assert newest_reading() is None
    assert not ages_now().stale
    assert ids(state="stale") == ids(state="reporting") == ids() == []
    assert fleet_counts() == (0, 0, 0, 0, None)


@pytest.mark.usefixtures("small_fleet")
def test_stale_is_measured_against_the_fleets_newest_reading() -> None:
    assert newest_reading() == to_datetime(T0)
    ages = ages_now()
    states = {row.id: ages.state_of(row.id) for row in GPU.objects.filter(mig_id="")}
    assert states == {"GPU-a": "reporting", "GPU-b": "reporting", "GPU-c": "stale", "GPU-d": "reporting"}


@pytest.mark.usefixtures("small_fleet")
def test_lists_show_physical_gpus_by_host_and_slot_and_instances_on_request() -> None:
    assert ids() == ["GPU-a", "GPU-b", "GPU-c", "GPU-d"]
    assert ids(mig=True) == ["GPU-a", "GPU-b", "GPU-c", "GPU-d", "GPU-d:1", "GPU-d:2"]


@pytest.mark.usefixtures("small_fleet")
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"hostnames": ["host-1"]}, ["GPU-a", "GPU-b"]),
        ({"hostnames": ["host-1", "host-2"], "models": ["A100"]}, ["GPU-c"]),
        ({"hostnames": ["host"]}, []),
        ({"models": ["A100", "NVIDIA H100 80GB HBM3"]}, ["GPU-a", "GPU-b", "GPU-c", "GPU-d"]),
        ({"namespaces": ["ml"]}, ["GPU-a", "GPU-d"]),
        ({"namespaces": ["shop"]}, ["GPU-b"]),
        ({"pods": ["web-2"]}, ["GPU-b"]),
        ({"pods": ["web-2", "train-0"]}, ["GPU-a", "GPU-b"]),
        ({"pods": ["train-0"], "namespaces": ["shop"]}, []),
        ({"pods": ["mig-1"]}, ["GPU-d"]),
        ({"pods": ["mig-1"], "mig": True}, ["GPU-d", "GPU-d:1"]),
        ({"state": "stale"}, ["GPU-c"]),
        ({"state": "reporting"}, ["GPU-a", "GPU-b", "GPU-d"]),
        ({"state": "reporting", "hostnames": ["host-2"]}, ["GPU-d"]),
        ({"search": "gpu-B"}, ["GPU-b"]),
        ({"search": "HOST-2"}, ["GPU-c", "GPU-d"]),
        ({"search": "a100"}, ["GPU-c"]),
        ({"search": "web-"}, ["GPU-b"]),
        ({"search": "  train host-1 "}, ["GPU-a"]),
        ({"search": "train host-2"}, []),
        ({"search": "%"}, []),
        ({"search": " "}, ["GPU-a", "GPU-b", "GPU-c", "GPU-d"]),
    ],
)
def test_filters(filters: dict[str, Any], expected: list[str]) -> None:
    assert ids(**filters) == expected


def test_an_unknown_state_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="'broken' is not a state: use reporting or stale"):
        gpus_for_list(state="broken")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="use reporting or stale"):
        in_state("", ages_now())  # type: ignore[arg-type]


def test_a_pod_that_has_gone_finds_nothing() -> None:
    save(block(gpu(pod="train"), 0, {UTIL: 1.0}))
    save(block(gpu(pod="serve"), 60, {UTIL: 1.0}))
    assert ids(pods=["train"]) == []
    assert ids(pods=["serve"]) == ["GPU-a"]


def test_a_list_is_one_query_with_one_gpu_and_with_fifty() -> None:
    for count in (1, 50):
        save(fleet(count, pod="train", namespace="ml"))
        ages = ages_now()
        with CaptureQueriesContext(connection) as queries:
            rows = [
                (row.id, row.host.name if row.host else "")
                for row in gpus_for_list(pods=["train"], state="reporting", search="gpu", ages=ages)
            ]
        assert len(rows) == count
        assert len(queries) == 1


@pytest.mark.usefixtures("small_fleet")
def test_the_fleet_is_counted_by_physical_gpus() -> None:
    assert fleet_counts() == (2, 4, 3, 1, to_datetime(T0))


def test_latest_readings_have_their_units_and_times() -> None:
    save(block(gpu(), 0, {UTIL: 12.0, POWER: 99.5, "SOMETHING_NEW": 3.0}))
    assert latest_readings(GPU.objects.get()) == [
        (UTIL, 12.0, "%", T0),
        (POWER, 99.5, "W", T0),
        ("SOMETHING_NEW", 3.0, "", T0),
    ]


def occupied(
    first: float, last: float, *, most: int = 100, **filters: Any
) -> list[tuple[str, str, float, float | None]]:
    """GPU, pod, and from when to when in seconds after T0."""
    with CaptureQueriesContext(connection) as asked:
        found = pods_between(T0 + round(first * SECOND), T0 + round(last * SECOND), most=most, **filters)
    assert len(asked) == 1
    return [
        (gpu, pod, (start - T0) / SECOND, None if end is None else (end - T0) / SECOND)
        for gpu, _, pod, _, start, end, _ in found
    ]


def test_what_ran_where_in_a_time() -> None:
    save(
        block(gpu("GPU-a", pod="first", namespace="ml"), 0, {UTIL: 1.0}),
        block(gpu("GPU-a", pod="first", namespace="ml"), 60.0000019, {UTIL: 1.0}),
        block(gpu("GPU-a", pod="second", namespace="web"), 120, {UTIL: 1.0}),
        block(gpu("GPU-b", gpu_id=1), 120, {UTIL: 1.0}),
    )
    # Times are kept to the microsecond: the last reading is still within.
    first, second = ("GPU-a", "first", 0.0, 60.000002), ("GPU-a", "second", 120.0, None)
    assert occupied(0, 1) == [first]
    assert occupied(-10, 0) == []
    assert occupied(-10, 1e-9) == [first]
    assert occupied(60.0000015, 120) == [first]
    assert occupied(61, 120) == []
    assert occupied(61, 121) == [second]
    assert occupied(500, 501) == [second]
    assert occupied(0, 500) == [first, second]
    assert occupied(0, 500, most=1) == [first]


def test_with_what_is_asked_for_comes_what_ran_there_besides() -> None:
    save(
        block(gpu("GPU-a", pod="first", namespace="ml"), 0, {UTIL: 1.0}),
        block(gpu("GPU-a", pod="second", namespace="web"), 120, {UTIL: 1.0}),
        block(gpu("GPU-b", pod="third", namespace="web", gpu_id=1), 120, {UTIL: 1.0}),
    )
    assert [pod for _, pod, _, _ in occupied(0, 500, namespaces=("ml",))] == ["first", "second"]
    assert [pod for _, pod, _, _ in occupied(0, 500, pods=("third", "nobody"))] == ["third"]
    assert occupied(0, 500, namespaces=("ml",), pods=("third",)) == []
    # What ran there at another time is not a reason to look at a GPU.
    assert occupied(100, 500, namespaces=("ml",)) == []


def test_hosts_between_are_where_gpus_sat_in_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    for at, host in ((0, "host-1"), (10, "host-1"), (20, "host-2"), (30, "host-2")):
        save(block(gpu("GPU-a", hostname=host), at, {UTIL: 1.0}), block(gpu("GPU-b"), at, {UTIL: 1.0}))

    def found(gpus: set[str], start: int, end: int) -> list[tuple[Any, ...]]:
        return sorted(
            (each.gpu, each.hostname, (each.start_ns - T0) // SECOND, each.end_ns and (each.end_ns - T0) // SECOND)
            for each in hosts_between(gpus, T0 + start * SECOND, T0 + end * SECOND)
        )

    assert found({"GPU-a"}, 0, 40) == [("GPU-a", "host-1", 0, 10), ("GPU-a", "host-2", 20, None)]
    assert found({"GPU-a"}, 0, 11) == [("GPU-a", "host-1", 0, 10)]
    assert found({"GPU-a"}, 11, 40) == [("GPU-a", "host-2", 20, None)]
    assert found({"GPU-c"}, 0, 40) == []
    monkeypatch.setattr("inventory.queries._MOST_GPUS_NAMED", 0)
    assert {each[0] for each in found({"GPU-a"}, 0, 40)} == {"GPU-a", "GPU-b"}


def test_boards_and_instances_are_counted_where_they_are_now() -> None:
    save(
        block(gpu("GPU-a", hostname="host-1"), 0, {UTIL: 1.0}),
        block(gpu("GPU-b", hostname="host-1", gpu_id=1, model_name="A100"), 0, {UTIL: 1.0}),
        block(gpu("GPU-c", hostname="host-2", mig_id="1"), 0, {UTIL: 1.0}),
        block(gpu("GPU-c", hostname="host-2", mig_id="2"), 0, {UTIL: 1.0}),
    )
    assert count_boards() == (3, 2)
    assert count_boards(hostnames=["host-1"]) == (2, 0)
    assert count_boards(hostnames=["host-1", "host-2"], models=["A100"]) == (1, 0)
    assert count_boards(uuids=["GPU-c", "GPU-b"]) == (2, 2)
    assert count_boards(uuids=["nobody"]) == (0, 0)
    assert sorted(instances_of(["GPU-c", "GPU-b"])) == ["GPU-c:1", "GPU-c:2"]


def test_a_gpu_has_moved_if_it_left_a_host_for_another_one_in_the_range() -> None:
    for at, host, slot in ((0, "host-1", 0), (10, "host-1", 0), (20, "host-2", 0), (30, "host-2", 1)):
        save(block(gpu("GPU-a", hostname=host, gpu_id=slot), at, {UTIL: 1.0}), block(gpu("GPU-b"), at, {UTIL: 1.0}))

    def moved(start: int, end: int, *hostnames: str) -> bool:
        return has_moved(T0 + start * SECOND, T0 + end * SECOND, hostnames)

    assert moved(0, 40)
    assert moved(5, 40, "host-1")
    assert not moved(15, 20)
    assert not moved(0, 40, "host-3")
    GPU.objects.filter(pk="GPU-a").delete()
    assert not moved(0, 40)


MOMENT = datetime(2025, 7, 18, 20, 42, 34, 500_001, UTC)


@pytest.mark.parametrize(
    "text", ["2025-07-18 20:42:34.500001", "2025-07-18 20:42:34.500001+00", "2025-07-18 22:42:34.500001+02"]
)
def test_the_texts_of_sqlite_and_postgresql(text: str) -> None:
    assert parse_moment(text) == MOMENT
    assert parse_moment(text).utcoffset() == MOMENT.utcoffset()


def test_the_text_of_this_database() -> None:
    for moment in (MOMENT, MOMENT.replace(microsecond=0), MOMENT.replace(microsecond=500_000)):
        Host.objects.all().delete()
        Host.objects.create(name="h", first_seen=moment, last_seen=moment)
        (text,) = Host.objects.values_list(Cast("last_seen", TextField()), flat=True)
        assert parse_moment(text) == moment


def test_a_gpu_is_found_by_the_beginning_of_its_id() -> None:
    save(block(gpu("GPU-39bd9cd5-1"), 0, {UTIL: 1.0}), block(gpu("GPU-39ff0000-2", gpu_id=1), 0, {UTIL: 1.0}))
    for name in ("GPU-39bd9cd5-1", "GPU-39bd", "39bd", "gpu-39BD9CD5"):
        found = find_gpu(name)
        assert isinstance(found, GPU)
        assert found.pk == "GPU-39bd9cd5-1"
    assert find_gpu("GPU-39") == ["GPU-39bd9cd5-1", "GPU-39ff0000-2"]
    assert find_gpu("39") == []
    assert find_gpu("nothing") == []
