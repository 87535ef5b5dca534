"""Writes what follows from the chart's values: its README.md and values.schema.json. `python -m ci.chart_docs` (make chart-docs).

In values.yaml a comment ``# -- text`` describes the value under it, and ``# @schema {…}`` adds to its schema, which otherwise follows
from its default. The names of settings are those of the settings table.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from telemetry_site.options import BY_NAME

CHART = Path(__file__).resolve().parents[1] / "helm" / "gpu-telemetry"
_KEY = re.compile(r"( *)([A-Za-z]\w*):(?: |$)")
_TYPES: dict[type, Any] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": 0},
    list: {"type": "array"},
    dict: {"type": "object"},
}


class Value(NamedTuple):
    """One value that has a description."""

    path: tuple[str, ...]
    default: Any
    text: str
    schema: dict[str, Any]


def read_values(text: str) -> Iterator[Value]:
    """The values in the order of the file. Raises ValueError for one that nobody described."""
    tree = yaml.safe_load(text)
    path: list[str] = []
    told, schema = "", {}
    inside: int | None = None  # the indent of a described value: what is deeper belongs to its default
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            told = stripped.removeprefix("# -- ")
        elif stripped.startswith("# @schema "):
            schema = json.loads(stripped.removeprefix("# @schema "))
        elif match := _KEY.match(line):
            indent = len(match[1])
            if inside is not None and indent > inside:
                continue
            inside = None
            path[indent // 2 :] = [match[2]]
            default = tree
            for key in path:
                default = default[key]
            if told:
                yield Value(tuple(path), default, told, schema)
                inside, told, schema = indent, "", {}
            elif not isinstance(default, dict) or not default:
                raise ValueError(f"values.yaml: {'.'.join(path)} has no line that begins with # --")


def make_schema(values: list[Value]) -> dict[str, Any]:
    """A JSON schema that lets no unknown key pass."""
    root = _folder()
    for value in values:
        folder = root
        for key in value.path[:-1]:
            folder = folder["properties"].setdefault(key, _folder())
        if value.path[-1] == "settings":
            schema: dict[str, Any] = {"$ref": "#/$defs/settings"}
        else:
            schema = {**_TYPES[type(value.default)], **value.schema}
        folder["properties"][value.path[-1]] = {"description": value.text, **schema}
    # Helm itself may add these.
    root["properties"]["global"]["additionalProperties"] = True
    secrets = {name for name, option in BY_NAME.items() if option.secret}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of gpu-telemetry",
        **root,
        "$defs": {
            "settings": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    name: {"type": ["string", "number", "boolean", "null"]} for name in sorted(set(BY_NAME) - secrets)
                },
            }
        },
    }


def _folder() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {}}


def make_table(values: list[Value]) -> str:
    """The values as a table in Markdown."""
    rows = ["| value | default | what it is |", "| --- | --- | --- |"]
    for value in values:
        default = json.dumps(value.default, ensure_ascii=False) if value.default not in ("", {}, []) else ""
        shown = f"`{default}`" if default else "–"
        rows.append(f"| `{'.'.join(value.path)}` | {shown} | {value.text} |")
    return "\n".join(rows)


def make_files() -> dict[Path, str]:
    """The files as they should be."""
    values = list(read_values((CHART / "values.yaml").read_text()))
    head, mark, _ = (CHART / "README.md").read_text().partition("## Values\n")
    return {
        CHART / "README.md": f"{head}{mark}\n{make_table(values)}\n",
        CHART / "values.schema.json": json.dumps(make_schema(values), indent=2, ensure_ascii=False) + "\n",
    }


if __name__ == "__main__":
    for path, text in make_files().items():
        path.write_text(text)
        sys.stdout.write(f"{path.relative_to(CHART.parents[1])}\n")
