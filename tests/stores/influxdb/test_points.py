"""Points of InfluxDB's answers become rows in order."""

from __future__ import annotations

from stores.base import ReadingsQuery
from stores.influxdb.answers import ResultSeries
from stores.influxdb.reader import RowBuilder
from tests.stores.making import rows

TAGS = {"uuid": "GPU-1", "mig_id": "", "gpu_id": "3", "hostname": "h%25", "device": "d", "model": "m"}


def series(
    *rows: list[object], columns: tuple[str, ...] = ("b", "a"), tags: dict[str, str] | None = None
) -> ResultSeries:
    return ResultSeries(
        columns=["time", *columns, "pod"], values=[list(row) for row in rows], tags=TAGS if tags is None else tags
    )


def told(points: RowBuilder, *, newest_first: bool = True) -> list[tuple[int, str, float, str]]:
    return [(row.time_ns, row.metric_name, row.value, row.pod) for row in rows(points.batch(newest_first=newest_first))]


def test_metrics_of_a_point_are_in_the_order_of_their_names() -> None:
    points = RowBuilder(ReadingsQuery())
    points.add(series([2, 1.0, 2.0, "p"], [1, None, 4.0, "q"]))
    assert told(points) == [(2, "a", 2.0, "p"), (2, "b", 1.0, "p"), (1, "a", 4.0, "q")]
    assert points.count == 2
    (origin,) = {row.hostname for row in rows(points.batch(newest_first=True))}
    assert origin == "h%"


def test_points_of_several_series_are_in_one_order() -> None:
    points = RowBuilder(ReadingsQuery())
    points.add(series([1, 1.0, None, ""], [2, 2.0, None, ""], tags={**TAGS, "uuid": "GPU-2"}))
    points.add(series([2, 3.0, None, ""]))
    found = rows(points.batch(newest_first=True))
    assert [(row.time_ns, row.uuid) for row in found] == [(2, "GPU-1"), (2, "GPU-2"), (1, "GPU-2")]
    found = rows(points.batch(newest_first=False))
    assert [(row.time_ns, row.uuid) for row in found] == [(1, "GPU-2"), (2, "GPU-1"), (2, "GPU-2")]


def test_of_two_points_of_one_gpu_and_time_the_last_in_tag_order_counts() -> None:
    points = RowBuilder(ReadingsQuery())
    points.add(series([1, 1.0, 2.0, "old"]))
    points.add(series([1, 9.0, None, "new"], tags={**TAGS, "hostname": "in another"}))
    assert told(points) == [(1, "a", 2.0, "old"), (1, "b", 9.0, "new")]


def test_what_is_out_of_range_or_no_number_is_left_out() -> None:
    points = RowBuilder(
        ReadingsQuery(
            metric_names=(
                "a",
                "b",
            )
        )
    )
    values: list[list[object]] = [
        [5, 1, "x"],
        [4, 2, None],
        [3, True, 7],
        [2, 3, 3],
        [1, 4, 4],
    ]
    points.add(
        ResultSeries(columns=["time", "a", "b"], values=[list(row) for row in values], tags=TAGS),
        from_ns=2,
        to_ns=5,
    )
    assert [row[:3] for row in told(points)] == [(4, "a", 2.0), (3, "b", 7.0), (2, "a", 3.0), (2, "b", 3.0)]


def test_only_wanted_metrics_are_told() -> None:
    points = RowBuilder(ReadingsQuery(metric_names=("a",)))
    points.add(series([1, 1.0, 2.0, ""]))
    assert told(points) == [(1, "a", 2.0, "")]


def test_two_points_of_one_time_in_an_answer_without_tags_are_one() -> None:
    # As a stream gives a GPU that moved while it was written: the tags stand in the rows.
    points = RowBuilder(ReadingsQuery())
    told: list[list[object]] = [[2, 1.0, "GPU-1", "here"], [2, 5.0, "GPU-1", "there"], [1, 3.0, "GPU-1", "here"]]
    points.add(ResultSeries(columns=["time", "a", "uuid", "hostname"], values=[list(row) for row in told]))
    assert [(row.time_ns, row.value, row.hostname) for row in rows(points.batch(newest_first=True))] == [
        (2, 5.0, "there"),
        (1, 3.0, "here"),
    ]
