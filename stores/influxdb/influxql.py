"""InfluxQL statements. Every value is bound through ``params``; only names are quoted, by one function."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from stores.base import ReadingsQuery
from stores.influxdb.line_protocol import FIRST_NS, GPU, LAST_NS, RESERVED, STRING_FIELDS, TAGS, encode_name

# The lowest float. A point without a reading compares as false.
_LOWEST = -1.7976931348623157e308
_SURROGATE = re.compile("[\ud800-\udfff]")

Params = dict[str, str | int | float]


def quote_identifier(name: str) -> str:
    """The name of a measurement, tag or field in a statement. No other text from outside gets into one."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


@dataclass(slots=True)
class Conditions:
    """What follows WHERE, and the values it binds. ``impossible`` is set once nothing can match."""

    params: Params = field(default_factory=dict)
    impossible: bool = False
    _parts: list[str] = field(default_factory=list)

    def equals(self, name: str, values: Sequence[str]) -> None:
        """The tag or string field has one of these values."""
        self._any_of([f"{quote_identifier(name)} = {self._bind(value)}" for value in _possible(values)])

    def gpus(self, ids: Sequence[str]) -> None:
        """The GPU is one of these. A colon in an id may or may not start a MIG instance, so the condition tries both."""
        alternatives = []
        for gpu_id in _possible(ids):
            uuid, colon, mig_id = gpu_id.rpartition(":")
            alternatives.append(self._gpu(gpu_id, ""))
            if colon and uuid and mig_id:
                alternatives.append(self._gpu(uuid, mig_id))
        self._any_of(alternatives)

    def boards(self, ids: Sequence[str]) -> None:
        """The GPU is one of these boards, a MIG instance of one, or one of these instances."""
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

    def between(self, start_ns: int | None, end_ns: int | None) -> None:
        """The time is in [start, end); None is no bound."""
        # The server refuses a statement with a time that it cannot represent.
        start, end = _as_time(start_ns, FIRST_NS), _as_time(end_ns, LAST_NS + 1)
        if start >= end:
            self.impossible = True
        if start > FIRST_NS:
            self._parts.append(f"time >= {self._bind(start)}")
        if end <= LAST_NS:
            self._parts.append(f"time < {self._bind(end)}")

    def branch(self) -> Conditions:
        """The same conditions, for another statement of the same request, which shares the parameters."""
        return Conditions(self.params, self.impossible, list(self._parts))

    def where(self) -> str:
        """The clause with its keyword. It is empty without conditions."""
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


def conditions_of(query: ReadingsQuery) -> Conditions:
    """A query's filters, without its time range and metrics, and without those that the reader has to apply.

    A GPU without a pod has no such field, and no condition finds what is missing.
    """
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
        if values and not (name in STRING_FIELDS[GPU] and "" in values):
            conditions.equals(name, [as_tag(value) if name in TAGS[GPU] else value for value in values])
    if query.metric_names and not encoded_metrics(query.metric_names):
        conditions.impossible = True
    return conditions


def as_tag(text: str) -> str:
    """A text to compare with a tag. An empty tag is a missing one."""
    return encode_name(text) if text else ""


def encoded_metrics(metric_names: Sequence[str]) -> list[str]:
    """The fields of these metrics, without names that no metric can have."""
    return [encode_name(name) for name in _possible(metric_names) if name not in RESERVED]


def _possible(texts: Sequence[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if not _SURROGATE.search(text)]


def _as_time(time_ns: int | None, otherwise: int) -> int:
    return otherwise if time_ns is None else min(max(time_ns, FIRST_NS), LAST_NS + 1)


def select_points(
    metric_names: Sequence[str],
    conditions: Conditions,
    *,
    newest_first: bool,
    limit: int = 0,
    by_series: bool = False,
) -> str:
    """Points of GPUs with these metrics (empty: all) and their descriptions. A limit of 0 is none.

    ``by_series`` returns each series by itself, with a limit of its own and its tags once instead of in each row.
    """
    tags = () if by_series else TAGS[GPU]
    names = (*encoded_metrics(metric_names), *STRING_FIELDS[GPU], *tags)
    columns = ", ".join(map(quote_identifier, names)) if metric_names else "*"
    grouped = " GROUP BY *" if by_series else ""
    order = "DESC" if newest_first else "ASC"
    limited = f" LIMIT {int(limit)}" if limit else ""
    return f'SELECT {columns} FROM "{GPU}"{conditions.where()}{grouped} ORDER BY time {order}{limited}'  # noqa: S608


def select_each(
    function: str, measurement: str, fields: Sequence[str], conditions: Conditions, *, by: Sequence[str] = ()
) -> str:
    """A function of each field, in groups by tags. The columns follow the time in the order of the fields."""
    columns = ", ".join(f"{function}({quote_identifier(field)})" for field in fields)
    return _select(columns, measurement, conditions, by)


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
    """A function of a field by window (without ``every_ns``: one) and by tags. A window without points has no row."""
    arguments = quote_identifier(field) if percent is None else f"{quote_identifier(field)}, {int(percent)}"
    window = "" if every_ns is None else f"time({int(every_ns)}ns)"
    fill = " fill(none)" if window else ""
    return _select(f"{function}({arguments})", measurement, conditions, by, window) + fill


def show_tag_values(measurement: str, tags: Sequence[str]) -> str:
    """The values of some tags."""
    keys = ", ".join(map(quote_identifier, tags))
    return f"SHOW TAG VALUES FROM {quote_identifier(measurement)} WITH KEY IN ({keys})"


def select_fields(measurement: str, fields: Sequence[str], conditions: Conditions, *, by: Sequence[str]) -> str:
    """These fields of each point that has at least one of them, in groups by tags."""
    return _select(", ".join(map(quote_identifier, fields)), measurement, conditions, by)


def show_fields(measurement: str) -> str:
    """The fields with their types, also those that no longer have points."""
    return f"SHOW FIELD KEYS FROM {quote_identifier(measurement)}"


def _select(columns: str, measurement: str, conditions: Conditions, by: Sequence[str], window: str = "") -> str:
    groups = ", ".join([*filter(None, [window]), *map(quote_identifier, by)])
    grouped = f" GROUP BY {groups}" if groups else ""
    return f"SELECT {columns} FROM {quote_identifier(measurement)}{conditions.where()}{grouped}"  # noqa: S608
