"""Which pods ran on which GPUs."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from stores.base import Store
from tests.api.conftest import A0, B0, B0_MIG, MINUTE, T0, Api, block_of, save

PLACEMENTS = "/api/v1/placements"


@pytest.fixture
def moved(store: Store, db: None) -> Store:
    """GPU-a0 runs train-1, then train-2; an instance of GPU-b0 runs serve-1."""
    later = replace(A0, pod="train-2")
    save(
        store,
        block_of([A0, B0_MIG, B0], [(0, T0, [1.0, 2.0, 3.0]), (1, T0, [1.0, 2.0, 3.0]), (2, T0, [1.0, 2.0, 3.0])]),
    )
    save(store, block_of([A0], [(0, T0 + MINUTE, [1.0, 2.0, 3.0])]))
    save(store, block_of([later], [(0, T0 + 2 * MINUTE, [1.0, 2.0, 3.0])]))
    return store


def pods(api: Api, query: str = "") -> list[str]:
    return [each["pod"] for each in api.get(f"{PLACEMENTS}?{query}")["data"]]


def test_a_pod_has_its_gpu_and_its_time(api: Api, moved: Store) -> None:
    body = api.get(f"{PLACEMENTS}?uuid=GPU-a0")
    assert (body["count"], body["next"], body["previous"]) == (2, None, None)
    assert body["data"][1] == {
        "gpu": "GPU-a0",
        "uuid": "GPU-a0",
        "hostname": "host-a",
        "gpu_id": 0,
        "namespace": "research",
        "pod": "train-1",
        "container": "main",
        "share": False,
        "started": "2025-07-18T20:42:34Z",
        "last_seen": "2025-07-18T20:43:34Z",
        "ended": "2025-07-18T20:43:34Z",
    }
    assert (body["data"][0]["pod"], body["data"][0]["ended"]) == ("train-2", None)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["train-2", "train-1", "serve-1"]),
        ("uuid=GPU-b0", ["serve-1"]),
        ("uuid=GPU-b0:3", ["serve-1"]),
        ("uuid=GPU-b0:4", []),
        ("hostname=host-a", ["train-2", "train-1"]),
        ("namespace=web", ["serve-1"]),
        ("pod=train-1&pod=serve-1", ["train-1", "serve-1"]),
        ("start_time=2025-07-18T20:43:34Z", ["train-2", "train-1", "serve-1"]),
        ("start_time=2025-07-18T20:43:35Z", ["train-2", "serve-1"]),
        ("end_time=2025-07-18T20:42:34Z", ["train-1", "serve-1"]),
        ("end_time=2025-07-18T20:42:33Z", []),
    ],
)
def test_filters(api: Api, moved: Store, query: str, expected: list[str]) -> None:
    assert pods(api, query) == expected


def test_pages(api: Api, moved: Store) -> None:
    first = api.get(f"{PLACEMENTS}?page_size=2")
    assert first["count"] == 3
    second = api.get(first["next"].removeprefix("http://testserver"))
    assert [each["pod"] for each in (*first["data"], *second["data"])] == pods(api)
    assert second["next"] is None


def test_an_impossible_range_is_refused(api: Api, moved: Store) -> None:
    path = f"{PLACEMENTS}?start_time=2025-07-18T20:43:00Z&end_time=2025-07-18T20:42:00Z"
    assert "end_time" in api.refused(path, 400)
