"""Hosts with their GPUs in sum."""

from __future__ import annotations

import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from inventory.models import AssetState, Host
from readings.model import Gpu
from stores.base import Store
from tests.api.conftest import H100, T0, Api, block_of, save
from tests.health.building import make_event

HOSTS = "/api/v1/hosts"


def test_a_host_sums_up_the_gpus_that_report(api: Api, fleet: Store) -> None:
    make_event(entity="GPU-a0", hostname="host-a", severity="critical")
    make_event("host_stale", entity_kind="host", entity="host-a", hostname="host-a")
    body = api.get(HOSTS)
    assert (body["count"], body["next"], body["previous"]) == (2, None, None)
    assert body["data"][0] == {
        "name": "host-a",
        "gpu_count": 2,
        "reporting": 1,
        "stale": 1,
        "mean_utilisation": 50.0,
        "power_watts": 410.0,
        "memory_used_mib": 4000.0,
        "last_seen": "2025-07-18T20:42:35Z",
        "expected": 2,
        "missing": 1,
        "state": "active",
        "owner": "",
        "tags": {},
        "events": {"critical": 1, "warning": 1, "info": 0},
        "url": "http://testserver/api/v1/hosts/host-a",
    }


def test_events_are_read_once_for_all_hosts(
    api: Api, fleet: Store, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    one_host = f"{HOSTS}/host-a"
    with CaptureQueriesContext(connection) as of_all:
        api.get(HOSTS)
    with CaptureQueriesContext(connection) as of_one:
        api.get(one_host)
    assert sum("health_event" in query["sql"] for query in (*of_all.captured_queries, *of_one.captured_queries)) == 3
    for number in range(20):
        make_event(entity=f"GPU-{number}", hostname="host-a")
    for path, before in ((HOSTS, of_all), (one_host, of_one)):
        with django_assert_max_num_queries(len(before)):
            api.get(path)
    assert api.get(one_host)["events"]["warning"] == 20


def test_what_no_gpu_reports_is_null_and_not_0(api: Api, store: Store, db: None) -> None:
    save(store, block_of([Gpu(uuid="GPU-x", hostname="h")], [(0, T0, [None, 5.0, None])]))
    (host,) = api.get(HOSTS)["data"]
    assert (host["mean_utilisation"], host["power_watts"], host["memory_used_mib"]) == (None, 5.0, None)


def test_pages(api: Api, fleet: Store) -> None:
    first = api.get(f"{HOSTS}?page_size=1")
    assert [host["name"] for host in first["data"]] == ["host-a"]
    assert first["count"] == 2
    second = api.get(first["next"])
    assert [host["name"] for host in second["data"]] == ["host-b"]
    assert second["next"] is None
    assert api.get(f"{HOSTS}?page=99")["data"] == []
    assert api.get(f"{HOSTS}?page=2&page_size=1")["previous"].endswith("?page_size=1")
    assert "page and cursor" in api.refused(f"{first['next']}&page=2", 400)


def test_next_stays_right_while_hosts_come(api: Api, fleet: Store) -> None:
    first = api.get(f"{HOSTS}?page_size=1")
    save(fleet, block_of([Gpu(uuid="GPU-0", hostname="host-0")], [(0, T0, [1.0, 2.0, 3.0])]))
    assert [host["name"] for host in api.get(first["next"])["data"]] == ["host-b"]


def test_one_host_has_its_gpus(api: Api, fleet: Store) -> None:
    body = api.get(f"{HOSTS}/host-a")
    assert body["gpu_count"] == 2
    assert [gpu["id"] for gpu in body["gpus"]] == ["GPU-a0", "GPU-a1"]
    assert [gpu["state"] for gpu in body["gpus"]] == ["reporting", "stale"]


def test_what_people_set_is_there(api: Api, fleet: Store) -> None:
    Host.objects.filter(name="host-a").update(asset_state=AssetState.RETIRED)
    Host.objects.filter(name="host-b").update(
        asset_state=AssetState.MAINTENANCE, expected_gpus=3, owner="research", tags={"rack": "r12"}
    )
    retired, in_maintenance = api.get(HOSTS)["data"]
    assert (retired["state"], retired["expected"], retired["missing"]) == ("retired", 0, 0)
    assert (in_maintenance["state"], in_maintenance["expected"], in_maintenance["missing"]) == ("maintenance", 3, 0)
    assert (in_maintenance["owner"], in_maintenance["tags"]) == ("research", {"rack": "r12"})
    assert api.get(f"{HOSTS}/host-b")["tags"] == {"rack": "r12"}
    assert "rack: r12" in api.ask(HOSTS, accept="text/html").content.decode()


@pytest.mark.parametrize("name", ["nowhere", "a%00b", "x" * 300, "%ff", "HOST-A"])
def test_an_unknown_host_is_a_404(api: Api, fleet: Store, name: str) -> None:
    assert "no host" in api.refused(f"{HOSTS}/{name}", 404)


@pytest.mark.parametrize("path", [f"{HOSTS}?host=a", f"{HOSTS}?page=0", f"{HOSTS}/host-a?page=1"])
def test_a_bad_question_is_a_400(api: Api, fleet: Store, path: str) -> None:
    api.refused(path, 400)


@pytest.mark.parametrize(("path", "queries"), [(HOSTS, 13), (f"{HOSTS}?page_size=1", 13), (f"{HOSTS}/host-a", 13)])
def test_the_cost_is_the_same_however_many_there_are(
    api: Api, fleet: Store, django_assert_max_num_queries: DjangoAssertNumQueries, path: str, queries: int
) -> None:
    with django_assert_max_num_queries(queries):
        api.get(path)
    many = [Gpu(uuid=f"GPU-{n}", hostname=f"host-{n // 4}", gpu_id=n % 4, model_name=H100) for n in range(60)]
    many += [Gpu(uuid=f"GPU-z{n}", hostname="host-a", gpu_id=n, model_name=H100) for n in range(2, 10)]
    save(fleet, block_of(many, [(n, T0, [1.0, 2.0, 3.0]) for n in range(len(many))]))
    with django_assert_max_num_queries(queries):
        api.get(path)


@pytest.mark.parametrize(
    "name", ["a/b", "/a//b/", "a?b=c", "a#b", "100%25", "a b", "a&b", "ü/💡", "a\u00a0b", "telemetry", "a+b", ";a"]
)
def test_what_is_listed_is_found(api: Api, store: Store, db: None, name: str) -> None:
    for gpu in (Gpu(uuid=f"GPU-{name}", hostname=name, gpu_id=0), Gpu(uuid="GPU-other", hostname="~other", gpu_id=0)):
        save(store, block_of([gpu], [(0, T0, [1.0, 2.0, 3.0])]))
    listed = next(each for each in api.get(HOSTS)["data"] if each["name"] == name)
    host = api.get(listed["url"])
    assert host["name"] == name
    gpu = api.get(host["gpus"][0]["url"])
    assert gpu["id"] == f"GPU-{name}"
    assert api.get(gpu["host_url"])["name"] == name
    assert api.get(gpu["telemetry_url"])["count"] == api.get(gpu["metrics_url"])["count"] == 3
    walked, url = [], f"{HOSTS}?page_size=1"
    while url:
        body = api.get(url)
        walked += [each["name"] for each in body["data"]]
        url = body["next"]
    assert sorted(walked) == sorted([name, "~other"])
    for path in (HOSTS, "/api/v1/gpus"):
        page = api.ask(path, accept="text/html").content.decode()
        assert api.ask(re.findall(rf'href="([^"]*{path}/[^"]*)"', page)[0]).status_code == 200


def test_a_slash_at_the_end_is_explained(api: Api, fleet: Store) -> None:
    for path in (f"{HOSTS}/host-a/", "/api/v1/gpus/GPU-a0/"):
        assert "paths have no trailing slash" in api.refused(path, 404)
