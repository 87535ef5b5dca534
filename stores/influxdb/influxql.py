"""InfluxQL: statements from queries. Every value is bound by ``params``; only names are quoted, by one function."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from stores.base import ReadingsQuery
from stores.influxdb.line_protocol import FIRST_NS, GPU, LAST_NS, RESERVED, STRING_FIELDS, SUPERSEDED, TAGS, encode_name

# No reading is lower, and a point without one compares as false.
_LOWEST = -1.7976931348623157e308
_SURROGATE = re.compile("[\ud800-\udfff]")

Params = dict[str, str | int | float]


def quote_identifier(name: str) -> str:
    """A measurement's, tag's or field's name in a statement. The only way a text of somebody else's gets into one."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


@dataclass(slots=True)
class Conditions:
    """What follows WHERE, and the values it binds. ``impossible`` once something is asked for that cannot be there."""

    params: Params = field(default_factory=dict)
    impossible: bool = False
    _parts: list[str] = field(default_factory=list)

    def equals(self, name: str, values: Sequence[str]) -> None:
        """The tag or string field has one of these values."""
        self._any_of([f"{quote_identifier(name)} = {self._bind(value)}" for value in _possible(values)])

    def gpus(self, ids: Sequence[str]) -> None:
        """It is one of these GPUs. An id alone does not tell whether a colon in it is a MIG instance's: both are tried."""
        alternatives = []
        for gpu_id in _possible(ids):
            uuid, colon, mig_id = gpu_id.rpartition(":")
            alternatives.append(self._gpu(gpu_id, ""))
            if colon and uuid and mig_id:
                alternatives.append(self._gpu(uuid, mig_id))
        self._any_of(alternatives)

    def boards(self, ids: Sequence[str]) -> None:
        """It is one of these boards or an instance of one, or one of these instances."""
        alternatives = []
        for gpu_id in _possible(ids):
            uuid, colon, mig_id = gpu_id.rpartition(":")
            alternatives.append(f'"uuid" = {self._bind(as_tag(gpu_id))}')
            if colon and uuid and mig_id:
                alternatives.append(self._gpu(uuid, mig_id))
        self._any_of(alternatives)

    def has_any(self, metric_names: Sequence[str]) -> None:
        """The point has a reading of at least one of these metrics."""
        self._any_of([f"{quote_identifier(name)} >= {self._bind(_LOWEST)}" for name in encoded_metrics(metric_names)])

    def is_superseded(self) -> None:
        """The point is one that another series has instead."""
        self._parts.append(f"{quote_identifier(SUPERSEDED)} = true")

    def between(self, start_ns: int | None, end_ns: int | None) -> None:
        """The time is in [start, end); None is no bound."""
        # What the server does not know as a time it would not compare, but refuse.
        start, end = _as_time(start_ns, FIRST_NS), _as_time(end_ns, LAST_NS + 1)
        if start >= end:
            self.impossible = True
        if start > FIRST_NS:
            self._parts.append(f"time >= {self._bind(start)}")
        if end <= LAST_NS:
            self._parts.append(f"time < {self._bind(end)}")

    def copy(self) -> Conditions:
        """The same conditions, to which others can be added."""
        return Conditions(dict(self.params), self.impossible, list(self._parts))

    def branch(self) -> Conditions:
        """The same conditions, to which others can be added, for a statement that goes with this one's and shares its params."""
        return Conditions(self.params, self.impossible, list(self._parts))

    def where(self) -> str:
        """The clause, with its keyword; nothing when there is no condition."""
        return f" WHERE {' AND '.join(self._parts)}" if self._parts else ""

    def _any_of(self, alternatives: list[str]) -> None:
        if alternatives:
            self._parts.append(f"({' OR '.join(alternatives)})")
        else:
            self.impossible = True

    def _gpu(self, uuid: str, mig_id: str) -> str:
        # A missing tag compares as empty.
        return f'("uuid" = {self._bind(as_tag(uuid))} AND "mig_id" = {self._bind(as_tag(mig_id))})'

    def _bind(self, value: str | int | float) -> str:
        name = f"p{len(self.params)}"
        self.params[name] = value
        return f"${name}"


def conditions_of(query: ReadingsQuery, measurement: str) -> Conditions:
    """What a query asks for, but for its time and its metrics."""
    conditions = Conditions()
    if query.gpus:
        conditions.gpus(query.gpus)
    for name, values in (
        ("hostname", query.hostnames),
        ("gpu_id", tuple(map(str, query.gpu_ids))),
        ("model", query.models),
        ("namespace", query.namespaces),
        ("pod", query.pods),
    ):
        if values:
            is_tag = name in TAGS[measurement]
            conditions.equals(name, [as_tag(value) if is_tag else value for value in values])
    if query.metric_names and not encoded_metrics(query.metric_names):
        conditions.impossible = True
    return conditions


def as_tag(text: str) -> str:
    """A text as it compares with a tag: an empty tag is a missing one."""
    return encode_name(text) if text else ""


def encoded_metrics(metric_names: Sequence[str]) -> list[str]:
    """The fields that these metrics have, without those that none can have."""
    return [encode_name(name) for name in _possible(metric_names) if name not in RESERVED]


def _possible(texts: Sequence[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if not _SURROGATE.search(text)]


def _as_time(time_ns: int | None, otherwise: int) -> int:
    return otherwise if time_ns is None else min(max(time_ns, FIRST_NS), LAST_NS + 1)


def select_points(
    measurement: str,
    metric_names: Sequence[str],
    conditions: Conditions,
    *,
    newest_first: bool,
    limit: int = 0,
    by_series: bool = False,
) -> str:
    """Points with these metrics (all, when none is named) and what describes them; limit 0 is none.

    ``by_series``: each series by itself, with a limit of its own, and tags beside the rows instead of in them.
    """
    tags = () if by_series else TAGS[measurement]
    if metric_names:
        names = (*encoded_metrics(metric_names), *STRING_FIELDS[measurement], *tags, SUPERSEDED)
        columns = ", ".join(map(quote_identifier, names))
    else:
        columns = "*"
    grouped = _group_by(TAGS[measurement]) if by_series else ""
    order = "DESC" if newest_first else "ASC"
    limited = f" LIMIT {int(limit)}" if limit else ""
    where = conditions.where()
    return f"SELECT {columns} FROM {quote_identifier(measurement)}{where}{grouped} ORDER BY time {order}{limited}"  # noqa: S608


def select_each(
    function: str, measurement: str, fields: Sequence[str], conditions: Conditions, *, by: Sequence[str] = ()
) -> str:
    """A function of each of these fields, one column each in their order after the time, in groups by tags."""
    columns = ", ".join(f"{function}({quote_identifier(field)})" for field in fields)
    return f"SELECT {columns} FROM {quote_identifier(measurement)}{conditions.where()}{_group_by(by)}"  # noqa: S608


def select_aggregate(
    function: str,
    measurement: str,
    field: str,
    conditions: Conditions,
    *,
    by: Sequence[str],
    every_ns: int | None = None,
    percent: int | None = None,
) -> str:
    """A function of a field in windows (without ``every_ns`` in one) and in groups by tags; of what has no point there is no row."""
    arguments = quote_identifier(field) if percent is None else f"{quote_identifier(field)}, {int(percent)}"
    windows = [] if every_ns is None else [f"time({int(every_ns)}ns)"]
    groups = ", ".join([*windows, *map(quote_identifier, by)])
    grouped = f" GROUP BY {groups}" if groups else ""
    fill = " fill(none)" if windows else ""
    return f"SELECT {function}({arguments}) FROM {quote_identifier(measurement)}{conditions.where()}{grouped}{fill}"  # noqa: S608


def count_superseded(conditions: Conditions) -> str:
    """How many points of GPUs are told of elsewhere."""
    marked = conditions.copy()
    marked.is_superseded()
    return select_each("count", GPU, (SUPERSEDED,), marked)


def show_tag_values(measurement: str, tags: Sequence[str]) -> str:
    """The values of some tags."""
    keys = ", ".join(map(quote_identifier, tags))
    return f"SHOW TAG VALUES FROM {quote_identifier(measurement)} WITH KEY IN ({keys})"


def select_fields(measurement: str, fields: Sequence[str], conditions: Conditions, *, by: Sequence[str]) -> str:
    """These fields of each point that has one of them, in groups by tags."""
    columns = ", ".join(map(quote_identifier, fields))
    return f"SELECT {columns} FROM {quote_identifier(measurement)}{conditions.where()}{_group_by(by)}"  # noqa: S608


def select_edge(measurement: str, *, newest: bool) -> str:
    """The time of the newest point, or of the oldest: of a field that every point has."""
    always = quote_identifier(STRING_FIELDS[measurement][0])
    return f"SELECT {'last' if newest else 'first'}({always}) FROM {quote_identifier(measurement)}"  # noqa: S608


def show_fields(measurement: str) -> str:
    """The fields there are, or once were, with their types."""
    return f"SHOW FIELD KEYS FROM {quote_identifier(measurement)}"


def select_newest(measurement: str, conditions: Conditions) -> str:
    """The time of each series' last point: of all points, since each has its string fields."""
    always = quote_identifier(STRING_FIELDS[measurement][0])
    return (
        f"SELECT last({always}) FROM {quote_identifier(measurement)}{conditions.where()}{_group_by(TAGS[measurement])}"  # noqa: S608
    )


def show_series(measurement: str) -> str:
    """The series there are: a line's beginning for each."""
    return f"SHOW SERIES FROM {quote_identifier(measurement)}"


def _group_by(tags: Sequence[str]) -> str:
    return f" GROUP BY {', '.join(map(quote_identifier, tags))}" if tags else ""
