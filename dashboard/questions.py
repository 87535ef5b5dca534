"""Questions to the store that parts of pages ask, with the limits that those of the API have."""

from __future__ import annotations

from collections.abc import Mapping

from django.conf import settings

from api.places import places
from api.views.query import MOST_GROUPS, MOST_POINTS
from dashboard.fleet_rows import given
from inventory.queries import hosts_between, pods_between
from stores.aggregate.buckets import Buckets
from stores.base import Aggregate, By, GroupSeries, PodAssignment, SeriesQuery
from stores.open import get_store

_MOST_PODS = 100_000


def ask_series(
    metric_name: str, aggregate: Aggregate, buckets: Buckets, query: Mapping[str, str], by: By | None = None
) -> list[GroupSeries]:
    """One metric in windows, of the GPUs that the filters of a page's URL choose.

    Raises TooMuch or TooBusy if it cannot be answered now, and StoreError or StoreUnavailable if the store is away.
    """
    assignments = None
    namespaces = given(query, "namespace")
    if namespaces:
        found = pods_between(buckets.start_ns, buckets.end_ns, namespaces=namespaces, most=_MOST_PODS)
        assignments = tuple(map(PodAssignment._make, found))
    with places.question() as heavy:
        return get_store().series(
            SeriesQuery(
                metric_name=metric_name,
                aggregate=aggregate,
                buckets=buckets,
                by=by,
                hostnames=given(query, "hostname"),
                models=given(query, "model"),
                namespaces=namespaces,
                assignments=assignments,
                most_groups=min(MOST_GROUPS, MOST_POINTS // buckets.count),
                memory=settings.QUERY_MEMORY,
                heavy=heavy,
                hosts=hosts_between,
            )
        )
