"""Readings of one GPU and over the fleet: filters, order, pages."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from pytest_django import DjangoAssertNumQueries, Settings

from readings.times import parse_time
from stores.base import Store
from tests.api.conftest import A0, A100, FB_USED, H100, MINUTE, POWER, T0, UTIL, Api, block_of, save

A0_TELEMETRY = "/api/v1/gpus/GPU-a0/telemetry"
FLEET = "/api/v1/telemetry"


NO_LINKS = {"next": None, "previous": None}


def keys(body: Any) -> list[tuple[str, str, str]]:
    return [(row["timestamp"], row["uuid"], row["metric_name"]) for row in body["data"]]


def test_a_row_has_exactly_the_fields_of_a_reading(api: Api, fleet: Store) -> None:
    body = api.get(f"{A0_TELEMETRY}?limit=2")
    assert body["data"][1] == {
        "timestamp": "2025-07-18T20:42:34.500000001Z",
        "metric_name": FB_USED,
        "gpu_id": 0,
        "device": "nvidia0",
        "uuid": "GPU-a0",
        "model_name": H100,
        "hostname": "host-a",
        "container": "main",
        "pod": "train-1",
        "namespace": "research",
        "value": 4000.0,
        "unit": "MiB",
    }
    assert body["count"] == 2


def test_the_newest_comes_first_then_by_metric(api: Api, fleet: Store) -> None:
    assert keys(api.get(A0_TELEMETRY)) == [
        ("2025-07-18T20:42:35Z", "GPU-a0", POWER),
        ("2025-07-18T20:42:34.500000001Z", "GPU-a0", FB_USED),
        ("2025-07-18T20:42:34.500000001Z", "GPU-a0", UTIL),
        ("2025-07-18T20:42:34.500000001Z", "GPU-a0", POWER),
        ("2025-07-18T20:32:34Z", "GPU-a0", FB_USED),
        ("2025-07-18T20:32:34Z", "GPU-a0", UTIL),
        ("2025-07-18T20:32:34Z", "GPU-a0", POWER),
    ]


def test_the_oldest_can_come_first(api: Api, fleet: Store) -> None:
    times = [row["timestamp"] for row in api.get(f"{A0_TELEMETRY}?order=asc")["data"]]
    assert times == sorted(times, key=lambda time: time.replace("Z", ""))
    assert times[0] == "2025-07-18T20:32:34Z"


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 7),
        ("?start_time=2025-07-18T20:42:34.500000001Z", 4),
        ("?start_time=2025-07-18T20:42:34.500000002Z", 1),
        ("?end_time=2025-07-18T20:42:35Z", 7),
        ("?end_before=2025-07-18T20:42:35Z", 6),
        ("?start_time=2025-07-18T20:42:35Z&end_time=2025-07-18T20:42:35Z", 1),
        ("?start_time=2025-07-18T20:32:34Z&end_time=2025-07-18T20:42:34Z", 3),
        ("?start_time=2025-07-18T22:42:35%2B02:00", 1),
        ("?start_time=2025-07-18T22:42:35+02:00", 1),
        ("?start_time=1752871355", 1),
        (f"?metric_name={UTIL}", 2),
        ("?metric_name=dcgm_gpu_utilization", 2),
        (f"?metric_name={UTIL}&metric_name={POWER}", 5),
        ("?metric_name=NO_SUCH_METRIC", 0),
        ("?hostname=host-a", 7),
        ("?hostname=host-b", 0),
        ("?gpu_id=0", 7),
        ("?gpu_id=1", 0),
    ],
)
def test_filters_of_a_gpu(api: Api, fleet: Store, query: str, count: int) -> None:
    body = api.get(A0_TELEMETRY + query)
    assert body["count"] == len(body["data"]) == count


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 17),
        ("?hostname=host-b", 7),
        ("?hostname=host-a&hostname=host-b", 17),
        (f"?model={quote(A100)}", 7),
        (f"?model={quote(H100)}&metric_name={FB_USED}", 3),
        ("?namespace=research", 7),
        ("?pod=serve-1", 1),
        ("?pod=serve-1&pod=train-1", 8),
        ("?gpu_id=1", 3),
        ("?start_time=2025-07-18T20:42:34Z", 8),
        ("?start_time=2025-07-18T20:42:34Z&end_time=2025-07-18T20:42:34.5Z", 4),
    ],
)
def test_filters_of_the_fleet(api: Api, fleet: Store, query: str, count: int) -> None:
    body = api.get(FLEET + query)
    assert body["count"] == len(body["data"]) == count


def test_a_mig_instance_has_readings_of_its_own(api: Api, fleet: Store) -> None:
    (row,) = api.get("/api/v1/gpus/GPU-b0:3/telemetry")["data"]
    assert (row["uuid"], row["mig_id"], row["value"]) == ("GPU-b0", "3", 500.0)
    assert all("mig_id" not in row for row in api.get("/api/v1/gpus/GPU-b0/telemetry")["data"])


def test_limit_and_offset_walk_through_all(api: Api, fleet: Store) -> None:
    whole = keys(api.get(A0_TELEMETRY))
    walked: list[tuple[str, str, str]] = []
    url, steps = f"{A0_TELEMETRY}?limit=3", 0
    while url:
        body = api.get(url)
        assert body["count"] == len(body["data"]) <= 3
        assert (body["previous"] is None) == (steps == 0)
        walked += keys(body)
        url, steps = body["next"], steps + 1
        assert url is None or url.startswith("http://testserver/api/v1/")
    assert walked == whole
    assert steps == 3


@pytest.mark.parametrize("query", ["page_size=3", "page_size=3&page=1", "page_size=3&order=asc", "page_size=17"])
def test_next_walks_through_the_fleet(api: Api, fleet: Store, query: str) -> None:
    whole = keys(api.get(FLEET + ("?order=asc" if "asc" in query else "")))
    walked: list[tuple[str, str, str]] = []
    url = f"{FLEET}?{query}"
    while url:
        body = api.get(url)
        walked += keys(body)
        url = body["next"]
    assert walked == whole


def test_a_cursor_stays_right_while_readings_arrive(api: Api, fleet: Store) -> None:
    first = api.get(f"{FLEET}?page_size=5")
    rest = keys(api.get(first["next"].replace("page_size=5", "page_size=100")))
    save(fleet, block_of([A0], [(0, T0 + MINUTE, [1.0, 2.0, 3.0])]))
    assert keys(api.get(first["next"].replace("page_size=5", "page_size=100"))) == rest
    assert len(rest) == 12


def test_pages_have_both_neighbours(api: Api, fleet: Store) -> None:
    body = api.get(f"{FLEET}?page=2&page_size=5&hostname=host-a")
    assert body["count"] == 5
    assert body["next"] is None
    assert body["previous"] == "http://testserver/api/v1/telemetry?page_size=5&hostname=host-a"
    assert api.get(f"{FLEET}?page=1000000&page_size=5")["data"] == []


@pytest.mark.parametrize("path", [f"{A0_TELEMETRY}?limit=100000", f"{FLEET}?page_size=999999999999"])
def test_more_rows_than_allowed_are_cut(api: Api, fleet: Store, settings: Settings, path: str) -> None:
    settings.MAX_PAGE_SIZE = 4
    body = api.get(path)
    assert body["count"] == 4
    assert body["next"]


def test_by_default_there_are_a_hundred_rows(api: Api, store: Store, db: None, settings: Settings) -> None:
    save(store, block_of([A0], [(0, T0 + second * MINUTE, [1.0, 2.0, 3.0]) for second in range(50)]))
    assert api.get(A0_TELEMETRY)["count"] == api.get(FLEET)["count"] == 100
    settings.MAX_PAGE_SIZE = 10
    assert api.get(A0_TELEMETRY)["count"] == api.get(FLEET)["count"] == 10


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (f"{A0_TELEMETRY}?limit=0", ["limit"]),
        (f"{A0_TELEMETRY}?offset=-1", ["offset"]),
        (f"{A0_TELEMETRY}?offset=99999999999999999999", ["offset"]),
        (f"{A0_TELEMETRY}?gpu_id=99999999999999999999", ["gpu_id"]),
        (f"{A0_TELEMETRY}?start_time=2025-07-19T00:00:00Z&end_time=2025-07-18T00:00:00Z", ["end_time", "start_time"]),
        (
            f"{A0_TELEMETRY}?start_time=2025-07-18T00:00:00Z&end_before=2025-07-18T00:00:00Z",
            ["end_before", "start_time"],
        ),
        (f"{A0_TELEMETRY}?page=1&limit=1", ["page", "limit"]),
        (f"{A0_TELEMETRY}?metric=x", ["'metric'", "metric_name"]),
        (f"{FLEET}?offset=1&page_size=1", ["offset", "page_size"]),
        (f"{FLEET}?cursor=nonsense", ["cursor"]),
        (f"{FLEET}?order=up", ["order", "asc"]),
    ],
)
def test_a_bad_question_names_the_parameter(api: Api, fleet: Store, path: str, words: list[str]) -> None:
    message = api.refused(path, 400)
    for word in words:
        assert word in message


def test_every_way_to_walk_finds_all_rows_once(api: Api, fleet: Store) -> None:
    for path in (A0_TELEMETRY, FLEET):
        whole = keys(api.get(path))
        for query in ("limit=3", "limit=3&offset=0", "page_size=3", "page_size=3&page=1"):
            walked: list[tuple[str, str, str]] = []
            url = f"{path}?{query}"
            while url:
                body = api.get(url)
                walked += keys(body)
                url = body["next"]
            assert walked == whole, (path, query)


def test_the_next_page_of_a_range_told_from_now_is_of_the_same_range(api: Api, store: Store, db: None) -> None:
    now = time.time_ns()
    save(store, block_of([A0], [(0, now - i * MINUTE, [float(i), None, None]) for i in range(1, 9)]))
    for path in (FLEET, A0_TELEMETRY):
        for query in ("limit=2", "limit=2&offset=2", "page_size=2&page=2"):
            body = api.get(f"{path}?start_time=-9m&end_time=now-30s&order=asc&{query}")
            for link in filter(None, (body["next"], body["previous"])):
                asked = parse_qs(urlsplit(link).query)
                start, end = (parse_time(asked[name][0]) for name in ("start_time", "end_time"))
                assert 0 <= start - (now - 9 * MINUTE) < MINUTE
                assert end - start == pytest.approx(8.5 * MINUTE, abs=1e8)
                assert len(api.get(link)["data"]) == 2


def test_a_cursor_goes_with_no_page_and_its_own_order_only(api: Api, fleet: Store) -> None:
    url = api.get(f"{FLEET}?page_size=5")["next"]
    assert "page" in api.refused(f"{url}&page=2", 400)
    assert "order" in api.refused(f"{url}&order=asc", 400)


@pytest.mark.parametrize("gpu", ["GPU-unknown", "a%00b", "%ff", "x" * 300, "%F0%9F%98%80", "GPU-a0%0a", "GPU-b0:4"])
@pytest.mark.parametrize("path", ["", "/telemetry", "/metrics"])
def test_an_unknown_gpu_is_a_404(api: Api, fleet: Store, gpu: str, path: str) -> None:
    assert "no GPU" in api.refused(f"/api/v1/gpus/{gpu}{path}", 404)


def test_a_gpu_that_only_the_store_knows_yet_is_no_404(api: Api, store: Store, db: None) -> None:
    store.write([block_of([A0], [(0, T0, [1.0, 2.0, 3.0])])])
    assert api.get(f"{A0_TELEMETRY}?hostname=elsewhere")["count"] == 0
    assert api.get("/api/v1/gpus/GPU-a0/metrics")["count"] == 3


def test_a_gpu_whose_readings_have_all_been_dropped_is_no_404(api: Api, fleet: Store) -> None:
    fleet.apply_retention(T0 + MINUTE)
    assert api.get(A0_TELEMETRY) == {"data": [], "count": 0, "next": None, "previous": None}
    assert api.get("/api/v1/gpus/GPU-a0/metrics") == {"data": [], "count": 0, **NO_LINKS}


def test_the_metrics_of_a_gpu(api: Api, fleet: Store) -> None:
    assert api.get("/api/v1/gpus/GPU-a0/metrics") == {"data": [FB_USED, UTIL, POWER], "count": 3, **NO_LINKS}
    assert api.get("/api/v1/gpus/GPU-b0:3/metrics") == {"data": [FB_USED], "count": 1, **NO_LINKS}


def test_readings_are_answered_without_a_query_to_the_inventory(
    api: Api, fleet: Store, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(0):
        api.get(A0_TELEMETRY)
        api.get(FLEET)
    with django_assert_num_queries(1):  # is the GPU known?
        api.get(f"{A0_TELEMETRY}?gpu_id=7")


def test_a_question_of_too_many_parts_is_a_400(api: Api, fleet: Store, settings: Settings) -> None:
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 10
    response = api.ask(FLEET + "?" + "&".join(f"pod={number}" for number in range(11)))
    assert response.status_code == 400
    assert response.json()["error"] == "bad_request"
