"""api.views.query: questions and answers, steps, limits and the shape of an answer."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from pytest_django import DjangoAssertNumQueries, Settings

from api.errors import BadRequest
from api.views import query
from api.views.query import CHOSEN_WINDOWS, MOST_WINDOWS, check_windows, choose_step, series_answer
from readings.model import Gpu, PointBlock
from readings.times import SECOND
from stores.aggregate.buckets import Buckets
from stores.base import GroupSeries, SeriesQuery, Store
from tests.api.conftest import A0, FB_USED, MINUTE, POWER, T0, UTIL, Api, block_of, save

QUERY = "/api/v1/query"
RANGE = "start_time=2025-07-18T20:30:00Z&end_time=2025-07-18T20:45:00Z&every=5m"


def values(body: Any) -> dict[str, list[float | None]]:
    return {",".join(each["group"].values()): [value for _, value in each["points"]] for each in body["data"]}


def test_the_mean_by_host(api: Api, fleet: Store) -> None:
    body = api.get(f"{QUERY}?metric={UTIL}&by=host&{RANGE}")
    assert body == {
        "metric": UTIL,
        "unit": "%",
        "agg": "mean",
        "every": "5m",
        "start_time": "2025-07-18T20:30:00Z",
        "end_time": "2025-07-18T20:45:00Z",
        "data": [
            {
                "group": {"host": host},
                "points": [["2025-07-18T20:30:00Z", first], ["2025-07-18T20:35:00Z", None], ["2025-07-18T20:40:00Z", last]],
            }
            for host, first, last in (("host-a", 15.0, 50.0), ("host-b", None, 35.0))
        ],
        "count": 2,
        "tier": "raw",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (f"metric={UTIL}&agg=max", {"": [20.0, None, 50.0]}),
        (f"metric={UTIL}&agg=min", {"": [10.0, None, 30.0]}),
        (f"metric={UTIL}&agg=count", {"": [2.0, None, 3.0]}),
        (f"metric={POWER}&agg=last&by=host", {"host-a": [200.0, None, 410.0], "host-b": [None, None, 310.5]}),
        (f"metric={POWER}&agg=p50&by=model", {"NVIDIA A100-SXM4-40GB": [None, None, 300.0], "NVIDIA H100 80GB HBM3": [100.0, None, 400.25]}),
        (f"metric={POWER}&agg=sum", {"": [300.0, None, 405.125 + 305.25]}),
        (f"metric={FB_USED}&agg=sum&by=gpu", {"GPU-a0": [1000.0, None, 4000.0], "GPU-a1": [2000.0, None, None], "GPU-b0": [None, None, 3000.0]}),
        (f"metric={FB_USED}&by=gpu&mig=true&uuid=GPU-b0", {"GPU-b0": [None, None, 3000.0], "GPU-b0:3": [None, None, 500.0]}),
        (f"metric={FB_USED}&uuid=GPU-b0:3&by=gpu", {"GPU-b0:3": [None, None, 500.0]}),
        (f"metric={FB_USED}&by=pod", {"research,train-1": [1000.0, None, 4000.0], "web,serve-1": [None, None, 500.0]}),
        (f"metric={FB_USED}&by=namespace&namespace=web", {"web": [None, None, 500.0]}),
        (f"metric={FB_USED}&by=host&pod=train-1&pod=nobody", {"host-a": [1000.0, None, 4000.0]}),
        (f"metric={POWER}&by=gpu&top=1", {"GPU-b0": [None, None, 305.25]}),
        (f"metric={UTIL}&hostname=host-a&by=gpu&model=NVIDIA%20H100%2080GB%20HBM3", {"GPU-a0": [10.0, None, 50.0], "GPU-a1": [20.0, None, None]}),
        ("metric=dcgm_gpu_utilization&agg=max", {"": [20.0, None, 50.0]}),
        ("metric=not_a_metric", {}),
        (f"metric={UTIL}&hostname=nowhere", {}),
        (f"metric={UTIL}&namespace=nobody", {}),
    ],
)  # fmt: skip
def test_questions(api: Api, fleet: Store, question: str, expected: dict[str, list[float | None]]) -> None:
    body = api.get(f"{QUERY}?{question}&{RANGE}")
    assert values(body) == expected
    assert list(values(body)) == list(expected)
    assert body["count"] == len(expected)


def test_by_default_it_is_the_last_hour_in_steps_of_ten_seconds(api: Api, store: Store, db: None) -> None:
    now = time.time_ns()
    save(store, block_of([A0], [(0, now - 50 * MINUTE, [1.0, None, None]), (0, now - 70 * MINUTE, [2.0, None, None])]))
    body = api.get(f"{QUERY}?metric={UTIL}")
    assert body["every"] == "10s"
    (points,) = [each["points"] for each in body["data"]]
    assert 360 <= len(points) <= 362
    assert [value for _, value in points if value is not None] == [1.0]


def test_times_may_be_told_from_now(api: Api, store: Store, db: None) -> None:
    now = time.time_ns()
    save(store, block_of([A0], [(0, now - 10 * MINUTE, [1.0, None, None]), (0, now - 2 * MINUTE, [2.0, None, None])]))
    for asked, expected in (
        ("start_time=-15m", [1.0, 2.0]),
        ("start_time=-1h&end_time=-5m", [1.0]),
        ("start_time=now-5m&end_time=now", [2.0]),
    ):
        for path in (f"{QUERY}?metric={UTIL}&{asked}", f"/api/v1/telemetry?metric_name={UTIL}&order=asc&{asked}"):
            body = api.get(path)
            found = (
                [reading["value"] for reading in body["data"]]
                if "telemetry" in path
                else [value for each in body["data"] for _, value in each["points"] if value is not None]
            )
            assert found == expected, path


def test_a_range_of_a_day_has_a_step_of_two_minutes(api: Api, fleet: Store) -> None:
    body = api.get(f"{QUERY}?metric={UTIL}&start_time=2025-07-18T00:00:00Z&end_time=2025-07-19T00:00:00Z")
    assert (body["every"], len(body["data"][0]["points"])) == ("2m", 720)


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("", ("metric is missing", "/api/v1/metrics")),
        ("metric=", ("metric", "empty")),
        (f"metric={UTIL}&agg=average", ("agg", "mean", "p99")),
        (f"metric={UTIL}&every=5", ("every", "10m")),
        (f"metric={UTIL}&every=0s", ("every", "1ms to 366d")),
        (f"metric={UTIL}&every=400d", ("every", "1ms to 366d")),
        (f"metric={UTIL}&every=5m;DROP", ("every", "duration")),
        (f"metric={UTIL}&by=rack", ("by", "host", "pod")),
        (f"metric={UTIL}&top=0", ("top", "1 to 1000")),
        (f"metric={UTIL}&start_time=-5m&end_time=-1h", ("end_time must be later",)),
        (f"metric={UTIL}&mig=true", ("mig", "by=gpu")),
        (f"metric={UTIL}&start_time=-1d&every=1s", ("every 1s", "86,40", "10,000")),
        (f"metric={UTIL}&agg=increase", ("increase is for counters", UTIL)),
        (f"metric={UTIL}&group=host", ("'group' is not a known parameter", "by")),
    ],
)  # fmt: skip
def test_a_bad_question_is_refused(api: Api, fleet: Store, question: str, words: tuple[str, ...]) -> None:
    message = api.refused(f"{QUERY}?{question}", 400)
    for word in words:
        assert word in message


def test_too_many_groups_are_refused_with_the_limit(api: Api, fleet: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "MOST_GROUPS", 2)
    assert "more than 2 groups" in api.refused(f"{QUERY}?metric={UTIL}&by=gpu&{RANGE}", 400)
    assert api.get(f"{QUERY}?metric={UTIL}&by=gpu&top=2&{RANGE}")["count"] == 2
    monkeypatch.setattr(query, "MOST_ASSIGNMENTS", 1)
    assert "more than 1 pods" in api.refused(f"{QUERY}?metric={UTIL}&by=pod&{RANGE}", 400)


@pytest.mark.parametrize(("by", "queries"), [("host", 1), ("gpu", 1), ("pod", 1), ("namespace", 1)])
def test_the_database_is_asked_once_at_most(
    api: Api,
    fleet: Store,
    by: str,
    queries: int,
    settings: Settings,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    settings.RETENTION_PERIOD = 0.0
    gpus = [A0.__class__(uuid=f"GPU-{n}", hostname="host-a", namespace="ml", pod=f"p-{n}") for n in range(50)]
    save(fleet, block_of(gpus, [(n, T0, [1.0, 1.0, 1.0]) for n in range(50)]))
    with django_assert_num_queries(queries):
        assert api.get(f"{QUERY}?metric={UTIL}&by={by}&{RANGE}")["count"] >= 1


def test_text_of_others_is_never_part_of_a_statement(api: Api, fleet: Store) -> None:
    for text in ("'; DROP TABLE reading; --", '" OR 1=1 --', "x' OR '1'='1", "$p0", "a\\"):
        for name in ("metric", "uuid", "hostname", "model", "namespace", "pod"):
            asked = f"metric={UTIL}&" if name != "metric" else ""
            body = api.get(f"{QUERY}?{asked}{name}={text.replace(';', '%3B')}&{RANGE}")
            assert body["data"] == [], (name, text)
    assert len(api.get(f"{QUERY}?metric={UTIL}&by=host&{RANGE}")["data"]) == 2


HOUR = 3600 * SECOND


@pytest.mark.parametrize(
    ("length", "step"),
    [
        (1, 10 * SECOND),
        (HOUR, 10 * SECOND),
        (3 * HOUR, 15 * SECOND),
        (24 * HOUR, 120 * SECOND),
        (7 * 24 * HOUR, 900 * SECOND),
        (30 * 24 * HOUR, HOUR),
        ((1 << 64) - 1, 360 * 24 * HOUR),
    ],
)
def test_a_step_is_chosen_that_makes_few_enough_points(length: int, step: int) -> None:
    start = -(1 << 63) if length > 1 << 62 else 1_752_871_354 * SECOND
    assert choose_step(start, start + length) == step
    assert Buckets(start, start + length, step).count <= CHOSEN_WINDOWS


def test_too_many_points_are_refused_with_the_limit() -> None:
    check_windows(Buckets(0, MOST_WINDOWS * SECOND, SECOND))
    with pytest.raises(BadRequest, match=r"every 1s would make 10,001 points .* 10,000 are allowed; .* use 15s"):
        check_windows(Buckets(0, MOST_WINDOWS * SECOND + 1, SECOND))


def test_groups_are_named_by_what_they_were_made_by() -> None:
    query = SeriesQuery(metric_name="DCGM_FI_DEV_POWER_USAGE", buckets=Buckets(0, 90 * SECOND, 60 * SECOND))
    assert msgspec.json.decode(msgspec.json.encode(series_answer(query, [GroupSeries((), [1.5, None])]))) == {
        "metric": "DCGM_FI_DEV_POWER_USAGE",
        "unit": "W",
        "agg": "mean",
        "every": "1m",
        "start_time": "1970-01-01T00:00:00Z",
        "end_time": "1970-01-01T00:01:30Z",
        "data": [{"group": {}, "points": [["1970-01-01T00:00:00Z", 1.5], ["1970-01-01T00:01:00Z", None]]}],
        "count": 1,
        "tier": "raw",
    }
    by_pod = SeriesQuery(metric_name="U", buckets=Buckets(0, 1, 1), by="pod", aggregate="count", assignments=())
    answer = series_answer(by_pod, [GroupSeries(("ml", "a"), [1.0])])
    assert msgspec.to_builtins(answer.data[0].group) == {"namespace": "ml", "pod": "a"}
    assert answer.unit == "count"


def test_a_page_shows_as_many_groups_as_it_can_and_says_so(
    api: Api, fleet: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{QUERY}?metric={UTIL}&by=host&{RANGE}"
    monkeypatch.setattr(query, "PAGE_POINTS", 5)
    page = api.ask(path, Accept="text/html").content.decode()
    assert "The first 1 of 2 groups are shown" in page
    assert ("host-a" in page, ">host-b<" in page) == (True, False)
    assert api.get(path)["count"] == 2
    monkeypatch.setattr(query, "PAGE_POINTS", 6)
    page = api.ask(path, Accept="text/html").content.decode()
    assert "groups are shown" not in page
    assert ">host-b<" in page


XID, REPLAYS, LIMIT, UNKNOWN = (
    "DCGM_FI_DEV_XID_ERRORS",
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER",
    "DCGM_FI_DEV_GPU_TEMP",
    "MY_BITMASK",
)
INSTANCES = [
    Gpu(uuid="GPU-mig", hostname="host-m", gpu_id=0, model_name="NVIDIA A100", mig_id=str(number), mig_profile="1g.5gb")
    for number in (1, 2, 3)
]


@pytest.fixture
def mig(db: None, store: Store) -> Store:
    """A board whose three instances repeat its values, twice."""
    names = [XID, REPLAYS, LIMIT, UNKNOWN, FB_USED]
    for step, row in enumerate([[31.0, 7.0, 60.0, 4.0, 100.0], [31.0, 10.0, 60.0, 4.0, 100.0]]):
        save(store, PointBlock(INSTANCES, names, [(each, T0 + step * SECOND, list(row)) for each in range(3)]))
    return store


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (f"metric={REPLAYS}&agg=increase", 3.0),
        (f"metric={LIMIT}&agg=sum", 60.0),
        (f"metric={UNKNOWN}&agg=sum", 4.0),
        (f"metric={UNKNOWN}&agg=sum&by=host", 4.0),
        (f"metric={XID}", 31.0),
        (f"metric={XID}&agg=max", 31.0),
        (f"metric={FB_USED}&agg=sum", 300.0),
    ],
)
def test_what_instances_repeat_counts_once(api: Api, mig: Store, question: str, expected: float) -> None:
    (points,) = values(api.get(f"{QUERY}?{question}&{RANGE}")).values()
    assert [point for point in points if point is not None] == [expected]


@pytest.mark.parametrize("agg", ["mean", "sum"])
def test_a_code_is_not_added_up(api: Api, mig: Store, agg: str) -> None:
    message = api.refused(f"{QUERY}?metric={XID}&agg={agg}&{RANGE}", 400)
    assert f"agg {agg}" in message
    assert "use max, min, count, last, p50" in message


def test_a_code_has_last_for_its_default(api: Api, mig: Store) -> None:
    assert api.get(f"{QUERY}?metric={XID}&{RANGE}")["agg"] == "last"


def test_the_board_of_instances_has_what_they_repeat(api: Api, mig: Store) -> None:
    latest = api.get("/api/v1/gpus/GPU-mig")["latest"]
    assert {name: each["value"] for name, each in latest.items()} == {XID: 31.0, REPLAYS: 10.0, LIMIT: 60.0}
