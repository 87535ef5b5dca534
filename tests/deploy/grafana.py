"""Reads the boards of deploy/grafana and puts their variables in as Grafana does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.deploy.compose import ROOT

FOLDER = ROOT / "deploy" / "grafana"
BOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / "dashboards").glob("*.json"))
}
ALL = ".*"  # the value of "All": allValue is put in as it is
_MINUTE_MS = 60_000
_REGEX_SIGNS = re.compile(r"[-/\\^$*+?.()|\[\]{}]")


@dataclass(frozen=True, slots=True)
class Question:
    """One query of a panel, or of a variable, which has no panel."""

    board: str
    title: str
    text: str
    target: Mapping[str, Any]
    panel: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.board}: {self.title} ({self.target.get('refId', 'variable')})"

    def shown(self, name: str) -> str:
        """A series' name after the panel's transformations."""
        for each in self.panel.get("transformations", ()):
            if each["id"] == "renameByRegex":
                pattern = re.sub(r"\$(\d)", r"\\\1", each["options"]["renamePattern"])
                name = re.sub(each["options"]["regex"], pattern, name)
        return name

    def interpolated(self, start_ms: int, end_ms: int, **values: str | Sequence[str]) -> str:
        """The text as Grafana sends it: macros and variables put in. Raises KeyError for a variable that is not given."""
        if minutes := re.fullmatch(r"(\d+)m", self.panel.get("timeFrom", "")):
            start_ms = end_ms - int(minutes[1]) * _MINUTE_MS
        text = self.text.replace("$timeFilter", f"time >= {start_ms}ms and time <= {end_ms}ms")
        text = text.replace("$__interval", "10s").replace("$__rate_interval", "10s")
        text = re.sub(r"\$\{(\w+):regex\}", lambda match: regex(values[match[1]]), text)
        assert "$" not in text.replace("$/", ""), text
        return text


def regex(value: str | Sequence[str]) -> str:
    """Grafana's format ``regex`` of a variable with one or several values."""
    if value == ALL:
        return ALL
    several = [value] if isinstance(value, str) else value
    escaped = [_REGEX_SIGNS.sub(r"\\\g<0>", each) for each in several]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def questions(kind: str) -> Iterator[Question]:
    """Every query of the data sources of this kind ("influxdb", "prometheus"), in the order of the boards."""
    for name, board in BOARDS.items():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query" and variable["datasource"]["type"] == kind:
                yield Question(name, variable["name"], variable["query"], {}, {})
        for panel in board["panels"]:
            for target in panel["targets"]:
                if target["datasource"]["type"] == kind:
                    text = target["query" if kind == "influxdb" else "expr"]
                    yield Question(name, panel["title"], text, target, panel)
