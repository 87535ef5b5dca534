"""Who held GPUs, and used them."""

from __future__ import annotations

import re
import time
from typing import Any, get_args

from django.http import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from api.browse.renderers import PageRenderer
from api.errors import BadRequest, Unavailable
from api.exports.usage import UsageLayout
from api.params import TIME_SCHEMA, Parameter, choice, number, several, time_ns
from api.places import places
from api.schema.usage_answers import UsageAnswer
from api.usage import group_parts, usage_answer
from api.views.base import CSV_SAFE, ExportView
from health.usage.prices import PricesError
from health.usage.report import DAY_NS, DEFAULT_RANGE_NS, TooManyRows, UsageBy, UsageQuestion, usage_report

MOST_ROWS = 20_000
MOST_EXPORTED_ROWS = 200_000
PAGE_ROWS = 500
MOST_DAYS = 800
# Of a longer range it takes a good part of a second to read what is kept.
LIGHT_NS = 2 * DAY_NS

GROUPS = tuple(name for name in get_args(UsageBy) if name != "tag")
_TAG = re.compile(r"tag:([A-Za-z][A-Za-z0-9._/-]{0,62})")


def grouping(text: str) -> tuple[str, str]:
    """``by`` and the name of the tag. Raises ValueError."""
    match = _TAG.fullmatch(text)
    if match:
        return "tag", match[1]
    if text not in GROUPS:
        raise ValueError(f"must be one of {', '.join(GROUPS)}, or tag:NAME, as tag:team")
    return text, ""


BY = Parameter(
    name="by",
    help="one row for each of these; tag:NAME by a tag of GPUs and hosts, as tag:team; default: namespace."
    " The row with an empty namespace or pod has the time that nobody held",
    parse=grouping,
    schema={
        "anyOf": [{"type": "string", "enum": list(GROUPS)}, {"type": "string", "pattern": f"^{_TAG.pattern}$"}],
        "example": "namespace",
    },
    default=("namespace", ""),
)
PER = choice(
    "per", "range: a row for each group; day: a row for each group and day (UTC)", "range", "day", default="range"
)
TOP = number(
    "top", "only this many groups, those with the most time that was held but idle; total has all", 1, MOST_ROWS
)
START_TIME = Parameter(
    name="start_time",
    help="start of the range (RFC 3339, or -30d for 30 days ago), rounded down to a whole hour, or to a day if that is more than 8 days ago;"
    " default: 7 days before end_time",
    parse=time_ns,
    schema=dict(TIME_SCHEMA) | {"example": "-7d"},
)
END_TIME = Parameter(
    name="end_time",
    help="end of the range, rounded up likewise, but not beyond now; default: now",
    parse=time_ns,
    schema=TIME_SCHEMA,
)
HOSTNAME = several("hostname", "only GPUs on this host")
MODEL = several("model", "only GPUs of this model, by its full name")
NAMESPACE = several("namespace", "only time that pods of this namespace held")
POD = several("pod", "only time that a pod of this name held")


def question_of(values: dict[str, Any], now_ns: int) -> UsageQuestion:
    """The question that the parameters ask. Raises BadRequest."""
    end = now_ns if values["end_time"] is None else values["end_time"]
    start = end - DEFAULT_RANGE_NS if values["start_time"] is None else values["start_time"]
    if end <= start:
        raise BadRequest("end_time must be later than start_time")
    by, tag = values["by"]
    per_day = values["per"] == "day"
    if per_day and min(end, now_ns) - start > MOST_DAYS * DAY_NS:
        raise BadRequest(f"per=day is for ranges of at most {MOST_DAYS} days: ask for a shorter range, or leave it out")
    return UsageQuestion(
        start,
        end,
        by,
        tag,
        per_day,
        values["hostname"],
        values["model"],
        values["namespace"],
        values["pod"],
    )


class UsageView(ExportView):
    """Who held GPUs, and used them: GPU-hours that were held, active, held but idle, free and unknown, effective hours, energy, and costs
    where prices are set.

    Ranges are whole hours, of whole days where they began more than 8 days ago, and may end now; the answer says which range was used. Held + free + unknown is
    all the time of the GPUs, to the nanosecond. A gap in the readings is unknown: neither idle nor busy. Time that was held belongs to the namespace and pod that
    held the GPU; the time of a board that is cut or shared is split evenly over its holders.
    """

    name = "Usage"
    tag = "health"
    operation_id = "usage"
    answer = UsageAnswer
    parameters = (BY, PER, TOP, START_TIME, END_TIME, HOSTNAME, MODEL, NAMESPACE, POD, CSV_SAFE)

    def get(self, request: Request) -> HttpResponseBase:
        """GPU-hours, energy and costs by group."""
        now_ns = time.time_ns()
        question = question_of(self.values, now_ns)
        top = self.values["top"]
        most = MOST_EXPORTED_ROWS if self.is_export or top else MOST_ROWS
        with places.question() as heavy:
            if question.end_ns - question.start_ns > LIGHT_NS:
                heavy()
            try:
                report = usage_report(question, now_ns, most_rows=most)
                answer = usage_answer(question, report, top)
            except TooManyRows as error:
                raise BadRequest(
                    f"{error.rows:,} rows are too many at once, {most:,} are allowed: use top, a filter, a shorter range"
                    f"{'' if self.is_export else ' or format=csv'}"
                ) from None
            except PricesError as error:
                raise Unavailable(f"USAGE_PRICES: {error}") from None
        if not self.is_export:
            return Response(self._shown(answer))
        layout = UsageLayout(answer, group_parts(question.by))
        return self.export(layout.parts(), layout, "usage", answer.by.replace(":", "-"), answer.per)

    def _shown(self, answer: UsageAnswer) -> UsageAnswer:
        """For a program the whole answer, for the page in a browser as much as it can show."""
        if isinstance(self.request.accepted_renderer, PageRenderer) and answer.count > PAGE_ROWS:
            self.note = f"The first {PAGE_ROWS} of {answer.count:,} rows are shown. JSON and CSV have all."
            answer.data = answer.data[:PAGE_ROWS]
        return answer
