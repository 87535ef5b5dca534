"""Steps, limits and the shape of an answer."""

from __future__ import annotations

import msgspec
import pytest

from api.errors import BadRequest
from api.views.query import CHOSEN_WINDOWS, MOST_WINDOWS, check_windows, choose_step, series_answer
from readings.times import SECOND
from stores.aggregate.buckets import Buckets
from stores.base import GroupSeries, SeriesQuery

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
    assert msgspec.to_builtins(series_answer(query, [GroupSeries((), [1.5, None])])) == {
        "metric": "DCGM_FI_DEV_POWER_USAGE",
        "unit": "W",
        "agg": "mean",
        "every": "1m",
        "start_time": "1970-01-01T00:00:00Z",
        "end_time": "1970-01-01T00:01:30Z",
        "data": [{"group": {}, "points": [("1970-01-01T00:00:00Z", 1.5), ("1970-01-01T00:01:00Z", None)]}],
        "count": 1,
    }
    by_pod = SeriesQuery(metric_name="U", buckets=Buckets(0, 1, 1), by="pod", aggregate="count", assignments=())
    answer = series_answer(by_pod, [GroupSeries(("ml", "a"), [1.0])])
    assert msgspec.to_builtins(answer.data[0].group) == {"namespace": "ml", "pod": "a"}
    assert answer.unit == "count"
