"""The list of GPUs and one GPU: fields, filters, pages, and the number of queries."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from pytest_django import DjangoAssertNumQueries, Settings

from api.links import item_url
from readings.model import Gpu
from readings.times import SECOND
from stores.base import Store
from tests.api.conftest import A100, H100, POWER, T0, UTIL, Api, block_of, save
from tests.health.building import make_event

GPUS = "/api/v1/gpus"


def test_the_list_names_physical_gpus_by_host_and_index(api: Api, fleet: Store) -> None:
    body = api.get(GPUS)
    assert body["data"] == ["GPU-a0", "GPU-a1", "GPU-b0"]
    assert [gpu["id"] for gpu in body["gpus"]] == body["data"]
    assert (body["count"], body["next"], body["previous"]) == (3, None, None)


def test_a_gpu_of_the_list(api: Api, fleet: Store) -> None:
    make_event(entity="GPU-a0", hostname="host-a", severity="critical")
    make_event("idle_held", entity="GPU-a0", hostname="host-a", severity="info")
    make_event(entity="GPU-b0:3", hostname="host-b")
    counts = [gpu["events"] for gpu in api.get(f"{GPUS}?mig=true")["gpus"]]
    one_of_an_instance = {"critical": 0, "warning": 1, "info": 0}
    assert counts[1:] == [{"critical": 0, "warning": 0, "info": 0}, one_of_an_instance, one_of_an_instance]
    assert api.get(f"{GPUS}/GPU-b0")["events"] == one_of_an_instance
    assert api.get(GPUS)["gpus"][0] == {
        "id": "GPU-a0",
        "uuid": "GPU-a0",
        "mig_id": "",
        "mig_profile": "",
        "gpu_id": 0,
        "device": "nvidia0",
        "model_name": H100,
        "hostname": "host-a",
        "driver_version": "535.129.03",
        "namespace": "research",
        "pod": "train-1",
        "container": "main",
        "state": "reporting",
        "first_seen": "2025-07-18T20:32:34Z",
        "last_seen": "2025-07-18T20:42:35Z",
        "events": {"critical": 1, "warning": 0, "info": 1},
        "url": "http://testserver/api/v1/gpus/GPU-a0",
    }


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("hostname=host-a", ["GPU-a0", "GPU-a1"]),
        ("hostname=host-a&hostname=host-b", ["GPU-a0", "GPU-a1", "GPU-b0"]),
        ("hostname=nowhere", []),
        (f"model={quote(A100)}", ["GPU-b0"]),
        ("namespace=research", ["GPU-a0"]),
        ("pod=serve-1", ["GPU-b0"]),
        ("pod=serve-1&mig=true", ["GPU-b0", "GPU-b0:3"]),
        ("state=stale", ["GPU-a1"]),
        ("state=reporting", ["GPU-a0", "GPU-b0"]),
        ("state=reporting&hostname=host-a", ["GPU-a0"]),
        ("search=gpu-A", ["GPU-a0", "GPU-a1"]),
        ("search=host-b", ["GPU-b0"]),
        ("search=h100+train", ["GPU-a0"]),
        ("search=%25", []),
        ("mig=true", ["GPU-a0", "GPU-a1", "GPU-b0", "GPU-b0:3"]),
        ("mig=false", ["GPU-a0", "GPU-a1", "GPU-b0"]),
    ],
)
def test_filters(api: Api, fleet: Store, query: str, ids: list[str]) -> None:
    body = api.get(f"{GPUS}?{query}")
    assert body["data"] == ids
    assert body["count"] == len(ids)


def test_pages(api: Api, fleet: Store) -> None:
    first = api.get(f"{GPUS}?page_size=2")
    assert (first["data"], first["count"], first["previous"]) == (["GPU-a0", "GPU-a1"], 3, None)
    second = api.get(first["next"])
    assert (second["data"], second["count"], second["next"]) == (["GPU-b0"], 3, None)
    assert second["previous"] is None  # a cursor leads onwards only
    second = api.get(f"{GPUS}?page_size=2&page=2")
    assert second["data"] == ["GPU-b0"]
    assert api.get(second["previous"]) == first


def test_next_stays_right_while_gpus_come(api: Api, fleet: Store) -> None:
    first = api.get(f"{GPUS}?page_size=2")
    newer = [Gpu(uuid="GPU-0", hostname="", gpu_id=0), Gpu(uuid="GPU-a2", hostname="host-a", gpu_id=2)]
    save(fleet, block_of(newer, [(0, T0, [1.0, 2.0, 3.0]), (1, T0, [1.0, 2.0, 3.0])]))
    second = api.get(first["next"])
    assert (second["data"], second["count"], second["next"]) == (["GPU-a2", "GPU-b0"], 5, None)


def test_next_walks_through_the_list(api: Api, store: Store, db: None) -> None:
    gpus = [Gpu(uuid=f"GPU-{n:02}", hostname=f"host-{n % 3}" if n % 4 else "", gpu_id=n % 2 or None) for n in range(20)]
    save(store, block_of(gpus, [(n, T0, [1.0, 2.0, 3.0]) for n in range(20)]))
    whole = api.get(GPUS)["data"]
    walked, url = [], f"{GPUS}?page_size=3"
    while url:
        body = api.get(url)
        walked += body["data"]
        url = body["next"]
    assert walked == whole
    assert len(set(walked)) == 20


def test_page_and_cursor_exclude_each_other(api: Api, fleet: Store) -> None:
    url = api.get(f"{GPUS}?page_size=1")["next"]
    assert "page and cursor" in api.refused(f"{url}&page=2", 400)
    assert "cursor" in api.refused(f"{GPUS}?cursor=x", 400)


def test_a_page_beyond_the_end_is_empty_and_still_counts(api: Api, fleet: Store) -> None:
    body = api.get(f"{GPUS}?page=1000000000")
    assert (body["data"], body["gpus"], body["count"], body["next"]) == ([], [], 3, None)


def test_page_size_is_cut_and_defaults_to_the_maximum(api: Api, fleet: Store, settings: Settings) -> None:
    settings.MAX_PAGE_SIZE = 2
    for query in ("", "?page_size=50"):
        body = api.get(GPUS + query)
        assert len(body["data"]) == 2
        assert body["next"]


@pytest.mark.parametrize(
    "query", ["state=broken", "page=x", "page_size=-1", "mig=1", "hostnames=a", "search=", "pod=%00"]
)
def test_a_bad_question_names_the_parameter(api: Api, fleet: Store, query: str) -> None:
    assert query.split("=")[0] in api.refused(f"{GPUS}?{query}", 400)


def test_a_long_search_is_answered(api: Api, fleet: Store) -> None:
    assert api.get(f"{GPUS}?search={'+'.join('aq' * 128)}")["count"] == 0


def test_an_empty_fleet(api: Api, store: Store, db: None) -> None:
    assert api.get(GPUS) == {"data": [], "count": 0, "gpus": [], "next": None, "previous": None}


@pytest.mark.parametrize(
    ("path", "queries"),
    [
        (GPUS, 5),
        (f"{GPUS}?state=stale", 5),
        (f"{GPUS}?search=a+b&hostname=h&page_size=10", 5),
        (f"{GPUS}?page_size=2", 6),
        (f"{GPUS}?page_size=1&page=2", 6),
    ],
)
def test_the_list_costs_the_same_however_many_gpus_there_are(
    api: Api, fleet: Store, django_assert_max_num_queries: DjangoAssertNumQueries, path: str, queries: int
) -> None:
    # The newest readings (three), rows, and their count where the page does not hold them all.
    with django_assert_max_num_queries(queries):
        api.get(path)
    many = [Gpu(uuid=f"GPU-{n}", hostname=f"host-{n // 8}", gpu_id=n % 8, model_name=H100) for n in range(50)]
    save(fleet, block_of(many, [(n, T0, [1.0, 2.0, 3.0]) for n in range(50)]))
    with django_assert_max_num_queries(queries):
        api.get(path)


def test_one_gpu_has_the_newest_of_each_metric(api: Api, fleet: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.views.gpus.time_ns", lambda: T0 + 61 * SECOND)
    body = api.get(f"{GPUS}/GPU-a0")
    assert body["latest"][POWER] == {
        "value": 410.0,
        "unit": "W",
        "timestamp": "2025-07-18T20:42:35Z",
        "age_seconds": 60.0,
    }
    assert body["latest"][UTIL] == {
        "value": 50.0,
        "unit": "%",
        "timestamp": "2025-07-18T20:42:34.500000001Z",
        "age_seconds": 60.5,
    }
    assert body["driver_version"] == "535.129.03"
    assert body["labels"] == {"DCGM_FI_DRIVER_VERSION": "535.129.03"}
    assert body["state"] == "reporting"


def test_one_gpu_links_to_what_belongs_to_it(api: Api, fleet: Store) -> None:
    body = api.get(f"{GPUS}/GPU-b0:3")
    assert body["mig_profile"] == "1g.5gb"
    assert api.get(body["telemetry_url"])["count"] == 1
    assert api.get(body["metrics_url"])["count"] == 1
    assert api.get(body["host_url"])["name"] == "host-b"
    assert api.get(body["url"])["id"] == body["id"]


def test_a_gpu_without_a_host(api: Api, store: Store, db: None) -> None:
    save(store, block_of([Gpu(uuid="GPU-x")], [(0, T0, [1.0, None, None])]))
    body = api.get(f"{GPUS}/GPU-x")
    assert (body["hostname"], body["host_url"], body["gpu_id"]) == ("", None, None)


def test_one_gpu_costs_few_queries(
    api: Api, fleet: Store, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_max_num_queries(7):  # the GPU with its host, the newest readings of the fleet, those of the host
        api.get(f"{GPUS}/GPU-a0")


def test_one_gpu_takes_no_parameters(api: Api, fleet: Store) -> None:
    assert "'latest'" in api.refused(f"{GPUS}/GPU-a0?latest=1", 400)


def test_urls_of_items_are_escaped() -> None:
    assert item_url("http://x/hosts", "a b/c?d:é") == "http://x/hosts/a%20b%2Fc%3Fd:%C3%A9"
