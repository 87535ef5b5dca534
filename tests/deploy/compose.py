"""Reads deploy/docker-compose.yml as compose does: anchors, merges and ${…}."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "deploy" / "docker-compose.yml"
_VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?::?([-?])([^}]*))?\})")


def interpolated(text: str, environ: Mapping[str, str]) -> str:
    """With ``$$``, ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}`` put in. Raises KeyError for the last."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if name is None:
            return "$"
        found = environ.get(name, "")
        if not found and kind == "?":
            raise KeyError(name)
        return found or (rest if kind == "-" else "")

    return _VARIABLE.sub(value, text)


def raw() -> dict[str, Any]:
    """The file with merges done and nothing put in."""
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return loaded


def resolved(environ: Mapping[str, str], value: Any = None) -> Any:
    """The file, or a part of it, with the variables put in."""
    value = raw() if value is None else value
    if isinstance(value, str):
        return interpolated(value, environ)
    if isinstance(value, dict):
        return {name: resolved(environ, each) if each is not None else None for name, each in value.items()}
    if isinstance(value, list):
        return [resolved(environ, each) for each in value]
    return value


def variables() -> dict[str, set[str]]:
    """Every variable of the file with the kinds in which it stands there: "-", "?" or ""."""
    found: dict[str, set[str]] = {}
    text = "\n".join(line for line in COMPOSE.read_text().splitlines() if not line.lstrip().startswith("#"))
    for match in _VARIABLE.finditer(text):
        if match[1]:
            found.setdefault(match[1], set()).add(match[2] or "")
    return found


def read_env(path: Path) -> dict[str, str]:
    """A .env file."""
    return dict(line.split("=", 1) for line in path.read_text().splitlines())
