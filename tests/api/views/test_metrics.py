"""The catalogue of metrics."""

from __future__ import annotations

from pytest_django import DjangoAssertNumQueries

from readings.catalogue import CATALOGUE
from readings.model import PointBlock
from stores.base import Store
from tests.api.conftest import A0, T0, UTIL, Api

METRICS = "/api/v1/metrics"


def test_every_metric_of_the_catalogue_is_told(
    api: Api, fleet: Store, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(0):
        body = api.get(METRICS)
    assert body["count"] == len(body["data"]) == len(CATALOGUE)
    by_name = {metric["name"]: metric for metric in body["data"]}
    assert by_name[UTIL] == {
        "name": UTIL,
        "aliases": list(CATALOGUE[UTIL].aliases),
        "title": "GPU utilisation",
        "unit": "%",
        "type": "gauge",
        "scope": "instance",
        "combine": "mean",
        "range": [0, 100],
        "description": CATALOGUE[UTIL].description,
        "seen": True,
    }
    assert by_name["DCGM_FI_DEV_GPU_TEMP"]["seen"] is False
    assert by_name["DCGM_FI_DEV_POWER_VIOLATION"]["range"] == [0, None]


def test_a_metric_that_is_not_in_the_catalogue_is_told_when_seen(api: Api, store: Store) -> None:
    store.write([PointBlock(gpus=[A0], metric_names=["MY_METRIC"], points=[(0, T0, [1.0])])])
    last = api.get(METRICS)["data"][-1]
    assert (last["name"], last["type"], last["unit"], last["seen"]) == ("MY_METRIC", "unknown", "", True)
    assert (last["scope"], last["combine"]) == ("unknown", "max")


def test_a_part_has_what_the_catalogue_says_of_the_whole(api: Api, store: Store) -> None:
    name = "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL:nvlink:3"
    store.write([PointBlock(gpus=[A0], metric_names=[name], points=[(0, T0, [1.0])])])
    last = api.get(METRICS)["data"][-1]
    assert (last["name"], last["type"], last["scope"], last["combine"]) == (name, "counter", "board", "one")
    assert last["title"].endswith(", nvlink 3")


def test_lists_take_limit_and_offset(api: Api, fleet: Store) -> None:
    for path in ("/api/v1/metrics", "/api/v1/gpus", "/api/v1/hosts", "/api/v1/gpus/GPU-a0/metrics"):
        whole = api.get(path)["data"]
        for query, expected in (
            ("limit=1", whole[:1]),
            ("limit=1&offset=1", whole[1:2]),
            ("offset=1", whole[1:]),
            ("page=2&page_size=1", whole[1:2]),
            ("offset=1000", []),
        ):
            body = api.get(f"{path}?{query}")
            assert body["data"] == expected, (path, query)
            assert body["count"] == len(whole)
        assert api.get(api.get(f"{path}?limit=1")["next"])["data"] == whole[1:2]
        assert "limit and page exclude" in api.refused(f"{path}?limit=1&page=1", 400).replace(
            "page and limit", "limit and page"
        )
