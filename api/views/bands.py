"""How a metric is spread over the GPUs of the fleet, over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rest_framework.request import Request
from rest_framework.response import Response

from api.errors import BadRequest
from api.places import places
from api.schema.answers import BandsAnswer
from api.views.base import ApiView
from api.views.query import (
    CHOSEN_WINDOWS,
    END_TIME,
    EVERY,
    HOSTNAME,
    METRIC,
    MODEL,
    MOST_POINTS,
    NAMESPACE,
    START_TIME,
    aggregate_of,
    buckets_of,
    series_query,
)
from inventory.bands import BAND_METRICS, MINUTE_NS, Bands, bands_between
from inventory.models import GPU
from readings.catalogue import combine_of, unit_of
from readings.times import format_duration, format_time
from stores.aggregate.buckets import Buckets
from stores.base import GroupSeries, TooMuch
from stores.open import get_store

_Values = NDArray[np.float64]
# Up to this many GPUs the store answers in time.
SMALL_FLEET = 1_000
# Minutes of a longer range take a good part of a second to read.
LIGHT_NS = 2 * 1440 * MINUTE_NS
RANKS = {"p5": 5, "median": 50, "p95": 95}


class BandsView(ApiView):
    """How one metric is spread over the GPUs: smallest, 5th percentile, median, 95th percentile and largest, for each window.

    Each GPU counts with its mean in the window. Windows are as in /api/v1/query. Of more than 1,000 GPUs, utilisation, temperature, power and memory used come
    from what collectors keep of each minute (`source` is kept), unless a filter or windows of other lengths than whole minutes need the store. Then
    each GPU counts with its last value in the minute, and what is between min and max is right to half a step of its histogram. Other windows of a large
    fleet are longer, unless `every` is given.
    """

    name = "Bands"
    tag = "fleet"
    operation_id = "fleet_bands"
    answer = BandsAnswer
    parameters = (METRIC, EVERY, START_TIME, END_TIME, HOSTNAME, MODEL, NAMESPACE)

    def get(self, request: Request) -> Response:
        """One metric over the GPUs of the fleet, window by window."""
        metric = self.values["metric"]
        if combine_of(metric) == "never":
            raise BadRequest(f"{metric} is a code, a state or a bitmask: it has no bands")
        values = {
            "agg": None,
            "by": "gpu",
            "top": None,
            "uuid": (),
            "namespace": (),
            "pod": (),
            "mig": False,
        } | self.values
        gpus = GPU.objects.filter(mig_id="").count()
        with places.question() as heavy:
            kept = kept_answer(values, heavy) if gpus > SMALL_FLEET else None
            if kept is not None:
                return Response(kept)
            buckets = buckets_of(values, min(CHOSEN_WINDOWS, max(1, MOST_POINTS // max(1, gpus))))
            query = series_query(values | {"agg": aggregate_of(metric, None)}, buckets, heavy)
            # The answer has no series of a GPU, so only their points are limited.
            try:
                found = get_store().series(replace(query, most_groups=max(1, MOST_POINTS // buckets.count)))
            except TooMuch:
                raise BadRequest(
                    f"{gpus:,} GPUs in {buckets.count:,} windows are too much at once: ask for longer windows, a shorter range"
                    " or fewer GPUs"
                ) from None
        return Response(bands_answer(metric, buckets, of_series(found, buckets.count)))


def kept_answer(values: Mapping[str, Any], heavy: Callable[[], None]) -> BandsAnswer | None:
    """The bands from what collectors keep; None if they keep nothing that answers the question. One query.

    Calls ``heavy`` for a range that takes long. Raises BadRequest, and what ``heavy`` raises.
    """
    metric, every_ns = values["metric"], values["every"]
    if metric not in BAND_METRICS or values["hostname"] or values["namespace"]:
        return None
    if every_ns is not None and every_ns % MINUTE_NS:
        return None
    buckets = buckets_of(values)
    if buckets.every_ns < MINUTE_NS:
        buckets = replace(buckets, every_ns=MINUTE_NS)
    if buckets.end_ns - buckets.start_ns > LIGHT_NS:
        heavy()
    bands = bands_between(metric, buckets.origin_ns, buckets.end_ns, values["model"] or None)
    return of_minutes(metric, buckets, bands) if len(bands.time_ns) else None


def of_minutes(metric: str, buckets: Buckets, bands: Bands) -> BandsAnswer:
    """The bands of windows from those of their minutes: the smallest min, the largest max and count, the mean of the others."""
    # Of windows since 1970, because the first may begin before the earliest time that 64 bits hold.
    window = bands.time_ns // buckets.every_ns - buckets.origin_ns // buckets.every_ns
    minutes = np.bincount(window, minlength=buckets.count)
    count = np.zeros(buckets.count, np.int64)
    np.maximum.at(count, window, bands.count)
    low, high = np.full(buckets.count, np.inf), np.full(buckets.count, -np.inf)
    np.minimum.at(low, window, bands.min)
    np.maximum.at(high, window, bands.max)

    def mean(of_minute: _Values) -> list[float | None]:
        sums = np.bincount(window, weights=of_minute, minlength=buckets.count)
        return _listed(np.where(minutes > 0, sums / np.maximum(minutes, 1), np.nan))

    return _answer(
        metric,
        buckets,
        "kept",
        min=_listed(np.where(minutes > 0, low, np.nan)),
        p5=mean(bands.p5),
        median=mean(bands.median),
        p95=mean(bands.p95),
        max=_listed(np.where(minutes > 0, high, np.nan)),
        sum=mean(bands.sum),
        count=count.tolist(),
    )


def of_series(series: Sequence[GroupSeries], windows: int) -> _Values:
    """The series as an array, GPUs x windows, with NaN for gaps."""
    if not series:
        return np.full((0, windows), np.nan)
    return np.array([each.values for each in series], np.float64)


def bands_answer(metric: str, buckets: Buckets, values: _Values) -> BandsAnswer:
    """The bands of an array, GPUs x windows. A percentile is the value of rank floor(n·rank/100 + 0.5), as in the stores."""
    counts = np.count_nonzero(~np.isnan(values), axis=0)
    ordered = np.sort(values, axis=0)  # NaN comes last
    windows = np.arange(buckets.count)

    def at(place: NDArray[np.intp]) -> list[float | None]:
        if not len(ordered):
            return [None] * buckets.count
        found = ordered[np.clip(place, 0, len(ordered) - 1), windows]
        return _listed(np.where(counts > 0, found, np.nan))

    ranked = {name: at(np.maximum(0, (counts * rank / 100 + 0.5).astype(np.intp) - 1)) for name, rank in RANKS.items()}
    return _answer(
        metric,
        buckets,
        "store",
        min=at(np.zeros(buckets.count, np.intp)),
        max=at(counts - 1),
        sum=_listed(np.where(counts > 0, np.nansum(values, axis=0), np.nan)),
        count=counts.tolist(),
        **ranked,
    )


def _answer(
    metric: str, buckets: Buckets, source: Literal["store", "kept"], *, count: list[int], **bands: list[float | None]
) -> BandsAnswer:
    """The answer with these bands, by their names in it."""
    return BandsAnswer(
        metric=metric,
        unit=unit_of(metric),
        every=format_duration(buckets.every_ns),
        start_time=format_time(buckets.start_ns),
        end_time=format_time(buckets.end_ns),
        source=source,
        time=[format_time(time_ns) for time_ns in buckets.times()],
        count=count,
        **bands,
    )


def _listed(values: _Values) -> list[float | None]:
    return [None if value != value else round(value, 6) for value in values.tolist()]
