"""Turns a JSON answer into the tables that the browsable pages show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from django.urls import reverse

from api.links import item_url
from api.schema.answers import IndexAnswer

# The names inside these are not ours, and are shown unchanged.
_GIVEN_NAMES = frozenset({"labels", "refused"})
# Shown elsewhere on the page, or not at all.
_LEFT_OUT = frozenset({"next", "previous", "count", "error", "message", "url"})
# The values of these columns link to a page. Nothing else that was stored is a link.
_PAGES = {"uuid": "gpus", "hostname": "hosts"}
# These are links that the service made.
_LINKS = frozenset({*IndexAnswer.__struct_fields__, "telemetry_url", "metrics_url", "host_url"})

_ID = re.compile(r"((?:GPU|MIG)-[0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(:.+)?")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?Z")


class Cell(NamedTuple):
    """One value: its text, its link if any, its CSS class, and the full text if ``text`` is shortened."""

    text: str
    url: str = ""
    style: str = ""
    whole: str = ""


class Table(NamedTuple):
    """A table with a title. In a table of ``facts`` each row is a name and a value, and there are no heads."""

    title: str
    heads: list[Cell]
    rows: list[list[Cell]]
    facts: bool = False


def tables_of(answer: object) -> list[Table]:
    """The tables of an answer: first its plain values, then one for each list and each object."""
    if not isinstance(answer, Mapping):
        return []
    facts, tables = [], []
    for name, value in answer.items():
        if (
            name in _LEFT_OUT or value in ("", {}) or (name == "data" and "gpus" in answer)
        ):  # repeats the ids of the GPUs
            continue
        title = "" if name in {"data", "gpus"} and "name" not in answer else words(name)
        if isinstance(value, Mapping):
            tables.append(_of_mapping(title, value, given_names=name in _GIVEN_NAMES))
        elif not _is_list(value):
            facts.append([Cell(words(name)), _cell(name, value)])
        elif value and isinstance(value[0], Mapping):
            tables.append(_of_series(title, value) if "points" in value[0] else _of_rows(title, value))
        elif value and _is_list(value[0]):
            tables.append(Table(title, [], [[_cell("", each) for each in row] for row in value]))
        elif name == "data":
            tables.append(Table(title, [Cell("Name")], [[_cell("name", each)] for each in value]))
        else:
            facts.append([Cell(words(name)), _cell(name, value)])
    return [Table("", [], facts, facts=True), *tables] if facts else tables


def words(name: str) -> str:
    """A field's name as a heading: ``model_name`` is Model name. Names with capitals, as of metrics, stay."""
    if not name.islower():
        return name
    name = (
        name.removesuffix("_url").replace("_", " ").replace("gpu", "GPU").replace("mig ", "MIG ").replace("mib", "MiB")
    )
    return name[:1].upper() + name[1:]


def _of_mapping(title: str, mapping: Mapping[str, Any], *, given_names: bool) -> Table:
    if mapping and all(isinstance(value, Mapping) for value in mapping.values()):
        return _of_rows(title, [{"name": name, **value} for name, value in mapping.items()])
    rows = [
        [Cell(name), _cell("", value)] if given_names else [Cell(words(name)), _cell(name, value)]
        for name, value in mapping.items()
        if value not in ("", None)
    ]
    return Table(title, [], rows, facts=True)


def _of_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for row in rows for name in row if name != "url"))
    if "id" in names and "uuid" in names:  # they differ for MIG instances only
        names.remove("uuid")
    # Columns that are empty in every row are left out.
    names = [name for name in names if any(row.get(name) not in ("", None, [], {}) for row in rows)]
    lines = []
    for row in rows:
        line = [_short(_cell(name, row.get(name)), fraction=name == "timestamp") for name in names]
        if row.get("url"):
            line[0] = line[0]._replace(url=str(row["url"]))
        lines.append(line)
    numbers = {place for line in lines for place, cell in enumerate(line) if cell.style == "number"}
    heads = [Cell(words(name), style="number" if place in numbers else "") for place, name in enumerate(names)]
    return Table(title, heads, lines)


def _short(cell: Cell, *, fraction: bool) -> Cell:
    """Shortens a GPU's id to its first group, and a time to seconds, or to milliseconds with ``fraction``."""
    text = cell.text
    if match := _ID.fullmatch(text):
        text = f"{match[1]}{match[2] or ''}"
    elif match := _TIME.fullmatch(text):
        text = f"{match[1]} {match[2]}{(match[3] or '')[:4] if fraction else ''}"
    return cell if text == cell.text else cell._replace(text=text, style="short", whole=cell.text)


def _of_series(title: str, series: Sequence[Mapping[str, Any]]) -> Table:
    """A table of windows, with a row for each time and a column for each group."""
    values: dict[str, list[Cell]] = {}
    for position, each in enumerate(series):
        for time, value, *_ in each["points"]:
            row = values.setdefault(str(time), [Cell("")] * len(series))
            row[position] = _cell("value", value)
    heads = [
        Cell(
            str(each.get("metric") or " ".join(str(part) for part in each.get("group", {}).values()) or "all"),
            style="number",
        )
        for each in series
    ]
    rows = [[_short(Cell(time, style="short"), fraction=True), *row] for time, row in values.items()]
    return Table(title, [Cell("Time"), *heads], rows)


def _cell(name: str, value: object) -> Cell:
    match value:
        case None | "":
            return Cell("–" if value is None else "")
        case bool():
            return Cell("yes" if value else "no")
        case int() | float():
            return Cell(_number(value), style="number")
        case str() if name in _PAGES:
            return Cell(value, item_url(reverse(_PAGES[name]), value), "short" if len(value) <= 40 else "")
        case str() if name in _LINKS:
            return Cell(urlsplit(value).path or value, value)
        case str():
            is_short = len(value) <= 24 or name in {"timestamp", "metric_name"}
            return Cell(value, style="short" if is_short else "")
        case Mapping():
            return Cell(", ".join(f"{key}: {each}" for key, each in value.items()))
        case list() | tuple():
            return Cell(", ".join("–" if each is None else str(each) for each in value))
    return Cell(str(value))


def _number(value: float) -> str:
    """The number as in JSON, but whole numbers without a fraction, and sums without the noise of binary fractions."""
    if not isinstance(value, float) or abs(value) >= 1e15:
        return str(value)
    return str(int(value)) if value.is_integer() else str(round(value, 6) if abs(value) > 1 else value)


def _is_list(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | Mapping)
