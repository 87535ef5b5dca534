"""The fleet's snapshot."""

from __future__ import annotations

import gzip
import json
from typing import Any

from pytest_django import DjangoAssertNumQueries

from health.models import Event
from readings.model import Gpu
from stores.base import Store
from tests.api.conftest import T0, Api, block_of, save
from tests.health.building import make_event

FLEET = "/api/v1/fleet"


def test_the_snapshot_has_every_gpu_in_columns(api: Api, fleet: Store) -> None:
    body = api.get(FLEET)
    columns = body["gpus"]
    assert {len(column) for column in columns.values()} == {body["counts"]["expected"]}
    assert body["hosts"][columns["host"][0]]["name"] == "host-a"
    assert body["metric"]["name"] == "DCGM_FI_DEV_GPU_UTIL"
    assert columns["value"] == columns["utilisation"]
    power = api.get(f"{FLEET}?metric=DCGM_FI_DEV_POWER_USAGE")["gpus"]
    assert power["value"] == power["power"]


def test_an_unchanged_fleet_is_a_304(api: Api, fleet: Store) -> None:
    first = api.ask(FLEET)
    again = api.ask(FLEET, **{"If-None-Match": first["ETag"]})
    assert (again.status_code, again.content, again["ETag"]) == (304, b"", first["ETag"])
    save(fleet, block_of([Gpu(uuid="GPU-new", hostname="host-a")], [(0, T0, [1.0, 2.0, 3.0])]))
    assert api.ask(FLEET, **{"If-None-Match": first["ETag"]}).status_code == 200


def test_an_event_changes_the_fleet(api: Api, fleet: Store) -> None:
    first = api.ask(FLEET)
    event = make_event(entity="GPU-a0", hostname="host-a")
    changed = api.ask(FLEET, **{"If-None-Match": first["ETag"]})
    assert changed.status_code == 200
    assert (changed.json()["gpus"]["mark"][0], changed.json()["events"]["warning"]) == (2, 1)
    Event.objects.filter(pk=event.pk).update(severity="critical")
    raised = api.ask(FLEET, **{"If-None-Match": changed["ETag"]})
    assert raised.json()["gpus"]["mark"][0] == 1
    Event.objects.filter(pk=event.pk).update(state="closed")
    assert api.ask(FLEET)["ETag"] == first["ETag"]


def test_a_snapshot_reads_the_events_with_one_query(
    api: Api, fleet: Store, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    api.get(FLEET)
    with django_assert_num_queries(4):  # three of the fleet
        api.get(FLEET)
    for number in range(50):
        make_event(entity=f"GPU-{number}", hostname="host-a")
    with django_assert_num_queries(4):
        api.get(FLEET)


def test_it_is_compressed_for_who_takes_that(api: Api, fleet: Store) -> None:
    save(
        fleet,
        block_of(
            [Gpu(uuid=f"GPU-{n}", hostname="h", gpu_id=n) for n in range(64)],
            [(n, T0, [1.0, 2.0, 3.0]) for n in range(64)],
        ),
    )
    plain, packed = api.ask(FLEET), api.ask(FLEET, **{"Accept-Encoding": "gzip, br"})
    assert packed["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain
    whole: dict[str, Any] = json.loads(plain.content)
    assert json.loads(gzip.decompress(packed.content)) == whole


def test_filters_and_their_errors(api: Api, fleet: Store) -> None:
    assert api.get(f"{FLEET}?hostname=host-b")["counts"]["hosts"] == 1
    assert api.get(f"{FLEET}?hostname=nowhere")["counts"]["expected"] == 0
    assert "not a known parameter" in api.refused(f"{FLEET}?host=a", 400)


def test_a_browser_gets_a_page(api: Api, fleet: Store) -> None:
    assert api.ask(FLEET, Accept="text/html").status_code == 200


def test_availability_is_the_share_of_slots_with_a_fresh_reading(api: Api, fleet: Store) -> None:
    body = api.get(f"{FLEET}/availability")
    assert body["metrics"] == sorted(body["metrics"])
    have = {host["name"]: dict(zip(body["metrics"], host["have"], strict=True)) for host in body["hosts"]}
    # GPU-a1 is silent. The board of host-b has a reading of its own.
    assert have == {"host-a": dict.fromkeys(body["metrics"], 0.5), "host-b": dict.fromkeys(body["metrics"], 1.0)}
    assert [host["name"] for host in api.get(f"{FLEET}/availability?hostname=host-b")["hosts"]] == ["host-b"]
    assert api.get(f"{FLEET}/availability?hostname=nowhere")["hosts"] == []
    assert "not a known parameter" in api.refused(f"{FLEET}/availability?metric=a", 400)
    assert api.ask(f"{FLEET}/availability", accept="text/html").status_code == 200
    tag = api.ask(f"{FLEET}/availability")["ETag"]
    assert api.ask(f"{FLEET}/availability", **{"If-None-Match": tag}).status_code == 304


def test_availability_of_an_empty_fleet(api: Api, store: Store, db: None) -> None:
    assert api.get(f"{FLEET}/availability") == {"metrics": [], "hosts": []}
