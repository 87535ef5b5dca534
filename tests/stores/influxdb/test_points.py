"""Points of InfluxDB's answers become rows in order."""

from __future__ import annotations

from stores.influxdb.client import Series
from stores.influxdb.line_protocol import GPU, SHARE
from stores.influxdb.reader import Points

TAGS = {"uuid": "GPU-1", "mig_id": "", "gpu_id": "3", "hostname": "h%25", "device": "d", "model": "m"}


def series(*rows: list[object], columns: tuple[str, ...] = ("b", "a"), tags: dict[str, str] | None = None) -> Series:
    return Series(
        columns=["time", *columns, "pod"], values=[list(row) for row in rows], tags=TAGS if tags is None else tags
    )


def told(points: Points, *, newest_first: bool = True) -> list[tuple[int, str, float, str]]:
    return [
        (row.time_ns, row.metric_name, row.value, row.pod) for row in points.portion(newest_first=newest_first).rows()
    ]


def test_metrics_of_a_point_are_in_the_order_of_their_names() -> None:
    points = Points(GPU, frozenset())
    points.add(series([2, 1.0, 2.0, "p"], [1, None, 4.0, "q"]))
    assert told(points) == [(2, "a", 2.0, "p"), (2, "b", 1.0, "p"), (1, "a", 4.0, "q")]
    assert points.count == 2
    (origin,) = {row.hostname for row in points.portion(newest_first=True).rows()}
    assert origin == "h%"


def test_points_of_several_series_are_in_one_order() -> None:
    points = Points(GPU, frozenset())
    points.add(series([1, 1.0, None, ""], [2, 2.0, None, ""], tags={**TAGS, "uuid": "GPU-2"}))
    points.add(series([2, 3.0, None, ""]))
    rows = points.portion(newest_first=True).rows()
    assert [(row.time_ns, row.uuid) for row in rows] == [(2, "GPU-1"), (2, "GPU-2"), (1, "GPU-2")]
    rows = points.portion(newest_first=False).rows()
    assert [(row.time_ns, row.uuid) for row in rows] == [(1, "GPU-2"), (2, "GPU-1"), (2, "GPU-2")]


def test_the_later_of_two_points_of_one_gpu_and_time_counts() -> None:
    points = Points(GPU, frozenset())
    points.add(series([1, 1.0, 2.0, "old"]))
    points.add(series([1, 9.0, None, "new"], tags={**TAGS, "hostname": "elsewhere"}))
    assert told(points) == [(1, "a", 2.0, "old"), (1, "b", 9.0, "new")]


def test_shares_of_one_time_are_told_apart() -> None:
    points = Points(SHARE, frozenset())
    for pod in ("z", "y"):
        points.add(Series(columns=["time", "a"], values=[[1, 5.0]], tags={"uuid": "GPU-1", "pod": pod}))
    assert told(points) == [(1, "a", 5.0, "y"), (1, "a", 5.0, "z")]


def test_what_is_superseded_out_of_range_or_no_number_is_left_out() -> None:
    points = Points(GPU, frozenset({"a", "b"}))
    values: list[list[object]] = [
        [5, 1, "x", True],
        [4, 2, None, None],
        [3, True, 7, False],
        [2, 3, 3, None],
        [1, 4, 4, None],
    ]
    points.add(
        Series(columns=["time", "a", "b", "superseded"], values=[list(row) for row in values], tags=TAGS),
        from_ns=2,
        to_ns=5,
    )
    assert [row[:3] for row in told(points)] == [(4, "a", 2.0), (3, "b", 7.0), (2, "a", 3.0), (2, "b", 3.0)]


def test_only_wanted_metrics_are_told() -> None:
    points = Points(GPU, frozenset({"a"}))
    points.add(series([1, 1.0, 2.0, ""]))
    assert told(points) == [(1, "a", 2.0, "")]


def test_two_points_of_one_time_in_an_answer_without_tags_are_one() -> None:
    # As a stream gives a GPU that moved while it was written: the tags stand in the rows.
    points = Points(GPU, frozenset())
    rows: list[list[object]] = [[2, 1.0, "GPU-1", "old"], [2, 5.0, "GPU-1", "new"], [1, 3.0, "GPU-1", "old"]]
    points.add(Series(columns=["time", "a", "uuid", "hostname"], values=[list(row) for row in rows]))
    assert [(row.time_ns, row.value, row.hostname) for row in points.portion(newest_first=True).rows()] == [
        (2, 5.0, "new"),
        (1, 3.0, "old"),
    ]
