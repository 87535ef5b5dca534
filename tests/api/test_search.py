"""api.search: hosts, GPUs, pods and namespaces by a part of their names."""

from __future__ import annotations

import pytest

from readings.model import Gpu
from stores.base import Store
from tests.api.conftest import T0, Api, block_of, save


@pytest.mark.parametrize(
    ("text", "kind", "url"),
    [
        ("HOST-B", "host", "/hosts/host-b"),
        ("a0", "gpu", "/gpus/GPU-a0"),
        ("GPU-a0", "gpu", "/gpus/GPU-a0"),
    ],
)
def test_a_search_finds_by_the_beginning(api: Api, fleet: Store, text: str, kind: str, url: str) -> None:
    found = api.get(f"/api/v1/search?q={text}")["data"]
    assert (found[0]["kind"], found[0]["url"]) == (kind, url)


def test_a_search_finds_pods_and_namespaces(api: Api, store: Store, db: None) -> None:
    gpu = Gpu(uuid="GPU-x", hostname="a/b", namespace="red", pod="train-7")
    save(store, block_of([gpu], [(0, T0, [1.0, 2.0, 3.0])]))
    found = {row["kind"]: row for row in api.get("/api/v1/search?q=r")["data"]}
    assert found["pod"]["url"] == "/?pod=train-7"
    assert found["namespace"]["detail"] == "on 1 GPU"
    assert api.get("/api/v1/search?q=a/b")["data"][0]["url"] == "/hosts/a%2Fb"


@pytest.mark.parametrize("text", ["79", "xid 79", "XID79"])
def test_a_search_finds_the_events_of_an_xid(api: Api, fleet: Store, text: str) -> None:
    found = api.get(f"/api/v1/search?q={text}")["data"][0]
    assert (found["kind"], found["name"], found["url"]) == ("xid", "XID 79", "/events?state=all&subject=79")


def test_a_search_finds_rules_by_name_and_by_title(api: Api, db: None) -> None:
    for text in ("temp_high", "HOT CORE"):
        found = api.get(f"/api/v1/search?q={text}")["data"]
        first = found[0]
        assert (first["kind"], first["name"], first["url"]) == ("rule", "Hot core", "/events?state=all&rule=temp_high")
    assert api.get("/api/v1/search?q=xid%209999")["data"] == []


def test_a_search_needs_something_to_look_for(api: Api, db: None) -> None:
    assert "q is missing" in api.refused("/api/v1/search", 400)
    assert api.get("/api/v1/search?q=%20")["data"] == []
    assert "limit" in api.refused("/api/v1/search?q=a&limit=1000", 400)
