"""The fleet's snapshot."""

from __future__ import annotations

import gzip
import json
from typing import Any

from readings.model import Gpu
from stores.base import Store
from tests.api.conftest import T0, Api, block_of, save

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
