"""Many metrics of one GPU over time."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from stores.base import Store
from tests.api.conftest import B0, B0_MIG, FB_USED, POWER, T0, UTIL, Api, block_of, save

# T0 is 20:42:34.
RANGE = "start_time=2025-07-18T20:42:00Z&end_time=2025-07-18T20:44:00Z&every=1m"
A0 = f"/api/v1/gpus/GPU-a0/series?{RANGE}"


def test_each_metric_has_its_windows_with_lowest_and_highest(api: Api, fleet: Store) -> None:
    body = api.get(f"{A0}&metric={POWER}&metric={UTIL}&metric=nobody_has_this")
    assert (body["gpu"], body["every"], body["count"]) == ("GPU-a0", "1m", 3)
    power, util, unknown = body["data"]
    assert (power["metric"], power["unit"], power["agg"]) == (POWER, "W", "mean")
    assert power["points"] == [
        ["2025-07-18T20:42:00Z", 405.125, 400.25, 410.0],
        ["2025-07-18T20:43:00Z", None, None, None],
    ]
    assert util["points"][0] == ["2025-07-18T20:42:00Z", 50.0, 50.0, 50.0]
    assert [point[1:] for point in unknown["points"]] == [[None] * 3] * 2


def test_an_alias_is_the_metric_and_a_repeated_one_counts_once(api: Api, fleet: Store) -> None:
    (power,) = api.get(f"{A0}&metric=dcgm_power_usage&metric={POWER}")["data"]
    assert power["metric"] == POWER


def test_a_board_has_what_its_instances_make_where_it_has_none(api: Api, fleet: Store) -> None:
    body = api.get(f"/api/v1/gpus/GPU-b0:3/series?{RANGE}&metric={FB_USED}")
    assert body["data"][0]["points"][0][1:] == [500.0, 500.0, 500.0]
    # The board itself has memory readings in this window; in the minute before, both have none.
    board = api.get(f"/api/v1/gpus/GPU-b0/series?{RANGE}&metric={FB_USED}")
    assert board["data"][0]["points"][0][1:] == [3000.0, 3000.0, 3000.0]


def test_instances_alone_make_the_boards_value(api: Api, store: Store, db: None) -> None:
    board, first, second = B0, B0_MIG, replace(B0_MIG, mig_id="5")
    points: list[tuple[int, int, list[float | None]]] = [
        (0, T0, [None, 300.0, None]),
        (1, T0, [20.0, None, 100.0]),
        (2, T0, [60.0, None, 200.0]),
    ]
    save(store, block_of([board, first, second], points))
    body = api.get(f"/api/v1/gpus/GPU-b0/series?{RANGE}&metric={UTIL}&metric={POWER}&metric={FB_USED}")
    assert [each["points"][0][1:] for each in body["data"]] == [[40.0], [300.0, 300.0, 300.0], [300.0]]


def test_a_range_may_begin_with_the_earliest_time_there_is(api: Api, fleet: Store) -> None:
    body = api.get(
        f"/api/v1/gpus/GPU-a0/series?metric={UTIL}&start_time=1678-01-01T00:00:00Z&end_time=2262-01-01T00:00:00Z"
    )
    assert [point[1:] for point in body["data"][0]["points"] if point[1] is not None] != []


def test_an_unknown_gpu_is_not_found(api: Api, fleet: Store) -> None:
    assert "GPU-none" in api.refused(f"/api/v1/gpus/GPU-none/series?metric={UTIL}", 404)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ("", "metric is missing"),
        (f"metric={UTIL}&every=0s", "every"),
        (f"metric={UTIL}&start_time=2025-07-18T20:44:00Z&end_time=2025-07-18T20:44:00Z", "end_time"),
        (f"metric={UTIL}&colour=red", "colour"),
        ("&".join(f"metric=m{number}" for number in range(100)) + "&every=1s&start_time=-1h&end_time=now", "too much"),
    ],
)
def test_what_cannot_be_answered_is_said(api: Api, fleet: Store, asked: str, named: str) -> None:
    assert named in api.refused(f"/api/v1/gpus/GPU-a0/series?{asked}", 400)
