"""Any metric over time: a form, the chart and the table of what it asks for, and the same as files and as a curl line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.http import QueryDict
from django.urls import reverse

from api.browse.renderers import FOR_PEOPLE
from api.errors import BadRequest
from api.fleet import shared_prefix
from api.links import absolute
from api.params import EXPORT_FORMATS, Parameter, read_parameters
from api.views.query import ADDING, AGGREGATES, GROUPS, QueryView, aggregate_of, check_windows
from dashboard.views.page import Page
from inventory.fleet import Fleet, fleet_now
from readings.catalogue import CATALOGUE, combine_of, info, whole_of
from readings.mig import UTILISATION
from stores.aggregate.buckets import Buckets

# What the form asks for, in its order. Times come from the page's range.
FIELDS = ("metric", "agg", "every", "by", "top", "hostname", "model", "namespace", "pod", "uuid")
SEVERAL = ("hostname", "model", "namespace", "pod", "uuid")
LABELS = {"hostname": "Host", "model": "Model", "namespace": "Namespace", "pod": "Pod", "uuid": "GPU (uuid)"}
# What the form passes on without showing it.
KEPT = ("range", "start", "end", "tz", "refresh", "sort")
STEPS = ("10s", "30s", "1m", "5m", "15m", "1h", "6h", "1d")
MOST_SUGGESTED = 500


class MetricChoice(NamedTuple):
    """A metric as the list shows it. ``aggregates`` are those that mean something for it; the first is the default."""

    name: str
    title: str
    unit: str
    description: str
    aggregates: tuple[str, ...]


def aggregates_of(name: str) -> tuple[str, ...]:
    """What a metric can be aggregated to; the default first."""
    metric = info(name)
    is_code = combine_of(name) == "never"
    usable = [
        each
        for each in AGGREGATES
        if not (is_code and each in ADDING)
        and (each != "increase" or (metric is not None and metric.kind == "counter"))
    ]
    default = aggregate_of(name, None)
    return (default, *(each for each in usable if each != default))


def metric_choice(name: str) -> MetricChoice:
    """A metric of the catalogue, a part of one (a link …), or one that nobody has described."""
    metric = info(name)
    if metric is None:
        return MetricChoice(name, name, "", "Not in the catalogue.", aggregates_of(name))
    part = name.partition(":")[2].replace(":", " ")
    title = f"{metric.title}, {part}" if part else metric.title
    return MetricChoice(name, title, metric.unit, metric.description, aggregates_of(name))


def metric_choices(seen: Iterable[str]) -> tuple[list[MetricChoice], list[MetricChoice]]:
    """The metrics that the fleet sends, and those of the catalogue that it does not; each by title."""
    names = set(seen)
    others = (name for name in CATALOGUE if name not in {*names, *map(whole_of, names)})

    def sorted_by_title(chosen: Iterable[str]) -> list[MetricChoice]:
        return sorted(map(metric_choice, chosen), key=lambda choice: (choice.title.lower(), choice.name))

    return sorted_by_title(names), sorted_by_title(others)


class Field(NamedTuple):
    """A field of the form: its values as they were given, and what is wrong with them (empty: nothing)."""

    name: str
    values: list[str]
    error: str

    @property
    def value(self) -> str:
        """Its first value."""
        return self.values[0] if self.values else ""

    @property
    def inputs(self) -> list[str]:
        """A text for each of its inputs: one, if it is empty."""
        return self.values or [""]


def read_form(query: QueryDict) -> tuple[dict[str, Field], dict[str, Any]]:
    """Each field with its error, and the parsed values of those that have none. Empty fields are as if left out."""
    known: Mapping[str, Parameter] = {parameter.name: parameter for parameter in QueryView.parameters}
    fields: dict[str, Field] = {}
    values: dict[str, Any] = {}
    for name in FIELDS:
        given = [text for text in query.getlist(name) if text]
        one = QueryDict(mutable=True)
        one.setlist(name, given if name in SEVERAL else given[-1:])
        error = ""
        try:
            values |= read_parameters(one if given else QueryDict(), [known[name]]) if given or name != "metric" else {}
        except BadRequest as wrong:
            error = str(wrong.detail)
        fields[name] = Field(name, given, error)
    return fields, values


class ExplorePage(Page):
    """Any metric over time."""

    title = "Explore"
    menu = "explore"
    template_name = "dashboard/explore.html"

    def page_context(self) -> dict[str, Any]:
        fleet = fleet_now()
        seen, others = metric_choices(fleet.metric_names())
        fields, values = read_form(self.request.GET)
        chosen = values.get("metric") or self._default(seen)
        fields["metric"] = fields["metric"]._replace(values=[chosen])
        self._check(chosen, fields, values)
        errors = {name: field.error for name, field in fields.items() if field.error}
        asked = self._asked(chosen, fields)
        self._script = {
            "asked": asked,
            "errors": errors,
            "host_prefix": shared_prefix([host.name for host in fleet.hosts]),
            "metrics": {choice.name: choice._asdict() for choice in (*seen, *others)},
        }
        return {
            "fleet": fleet,
            "seen": seen,
            "others": others,
            "fields": fields,
            "filter_fields": [(fields[name], label) for name, label in LABELS.items()],
            "kept": [(name, self.request.GET[name]) for name in KEPT if name in self.request.GET],
            "listed": any(choice.name == chosen for choice in (*seen, *others)),
            "metric": metric_choice(chosen),
            "groups": GROUPS,
            "steps": STEPS,
            "suggested": self._suggested(fleet),
            "errors": errors,
            **self._links(asked),
        }

    def data(self) -> dict[str, Any]:
        return self._script

    @staticmethod
    def _default(seen: list[MetricChoice]) -> str:
        names = [choice.name for choice in seen]
        return UTILISATION if not names or UTILISATION in names else names[0]

    def _check(self, metric: str, fields: dict[str, Field], values: Mapping[str, Any]) -> None:
        """Adds what is wrong with fields together: an aggregate that the metric cannot have, too many windows."""
        try:
            aggregate_of(metric, values.get("agg"))
        except BadRequest as wrong:
            fields["agg"] = fields["agg"]._replace(error=str(wrong.detail))
        if values.get("every"):
            try:
                check_windows(Buckets(self.range.start_ns, self.range.end_ns, values["every"]))
            except BadRequest as wrong:
                fields["every"] = fields["every"]._replace(error=str(wrong.detail))

    def _asked(self, metric: str, fields: Mapping[str, Field]) -> list[tuple[str, str]]:
        """The parameters for the API, without times."""
        return [("metric", metric)] + [
            (name, value)
            for name in FIELDS[1:]
            for value in (fields[name].values if name in SEVERAL else fields[name].values[-1:])
        ]

    def _links(self, asked: list[tuple[str, str]]) -> dict[str, Any]:
        """The answer as a page, as files and as a curl line. A range that moves with the clock stays relative."""
        shown = self.range
        if shown.preset and self.anchor_ns is None:
            times = [("start_time", f"-{shown.preset}")]
        else:
            times = [("start_time", shown.start), ("end_time", shown.end)]
        query = urlencode([*asked, *times], safe=":")
        path = f"{reverse('query')}?{query}"
        files = [
            (
                name.upper() if name != "parquet" else "Parquet",
                f"{path}&{urlencode({'format': name} | FOR_PEOPLE.get(name, {}))}",
            )
            for name in EXPORT_FORMATS
        ]
        return {"answer_url": path, "files": files, "curl_url": absolute(self.request, path)}

    @staticmethod
    def _suggested(fleet: Fleet) -> dict[str, list[str]]:
        """What the fields of filters offer while somebody types."""
        return {
            "hostname": [host.name for host in fleet.hosts][:MOST_SUGGESTED],
            "model": sorted({name for name in fleet.models if name}),
            "namespace": sorted({name for name in fleet.namespaces if name})[:MOST_SUGGESTED],
            "pod": sorted({name for name in fleet.pods if name})[:MOST_SUGGESTED],
        }
