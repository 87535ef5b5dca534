"""The catalogue of metrics."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from api.pagination import cut_list
from api.params import paging_of
from api.schema.answers import MetricAnswer, MetricListAnswer
from api.views.base import ApiView
from readings.catalogue import CATALOGUE, UNKNOWN_COMBINE, MetricInfo, info
from stores.open import get_store


class MetricsView(ApiView):
    """The metrics: unit, type, range, aliases, and whether the store has readings of them.

    Metrics that have readings but are not in the catalogue come last: parts of one, as `NAME:nvlink:3`, and those of the type `unknown`, whose values count once
    for each GPU (`combine` is max).
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
        data = [_answer(metric.name, metric, seen=metric.name in names) for metric in CATALOGUE.values()]
        # A part, as NAME:nvlink:3, has what the catalogue says of the whole.
        data += [_answer(name, info(name), seen=True) for name in seen if name not in CATALOGUE]
        part, links = cut_list(request, self.values, data)
        return Response(MetricListAnswer(part, len(data), **links._asdict()))


def _answer(name: str, metric: MetricInfo | None, *, seen: bool) -> MetricAnswer:
    if metric is None:
        return MetricAnswer(
            name=name,
            aliases=[],
            title=name,
            unit="",
            type="unknown",
            scope="unknown",
            combine=UNKNOWN_COMBINE,
            range=[None, None],
            description="",
            seen=seen,
        )
    part = name.removeprefix(metric.name).removeprefix(":").replace(":", " ")
    return MetricAnswer(
        name=name,
        aliases=[] if part else list(metric.aliases),
        title=f"{metric.title}, {part}" if part else metric.title,
        unit=metric.unit,
        type=metric.kind,
        scope=metric.scope,
        combine=metric.combine,
        range=[metric.low, metric.high],
        description=metric.description,
        seen=seen,
    )
