"""The catalogue of metrics."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from api.pagination import cut_list
from api.params import paging_of
from api.schema.answers import MetricAnswer, MetricListAnswer
from api.views.base import ApiView
from readings.catalogue import CATALOGUE
from stores.open import get_store


class MetricsView(ApiView):
    """The metrics: unit, type, range, aliases, and whether the store has readings of them.

    Metrics that have readings but are not in the catalogue come last, with the type `unknown`.
    """

    name = "Metrics"
    tag = "telemetry"
    operation_id = "metrics"
    answer = MetricListAnswer
    parameters = paging_of("all")

    def get(self, request: Request) -> Response:
        """The metrics, their aliases, and whether the store has readings of them."""
        seen = get_store().metric_names()
        names = set(seen)
        data = [
            MetricAnswer(
                name=metric.name,
                aliases=list(metric.aliases),
                title=metric.title,
                unit=metric.unit,
                type=metric.kind,
                range=[metric.low, metric.high],
                description=metric.description,
                seen=metric.name in names,
            )
            for metric in CATALOGUE.values()
        ]
        data += [
            MetricAnswer(name, [], name, unit="", type="unknown", range=[None, None], description="", seen=True)
            for name in seen
            if name not in CATALOGUE
        ]
        part, links = cut_list(request, self.values, data)
        return Response(MetricListAnswer(part, len(data), **links._asdict()))
