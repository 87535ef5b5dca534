"""Imports between the rooms go one way, and the cores do no input or output of their own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {"broker", "readings", "stores", "ingest", "inventory", "health", "api", "dashboard", "telemetry_site"}

# What a process that reads or writes the log is made of.
SERVICE_HELPERS = {
    f"telemetry_site.{name}" for name in ("broker_address", "concurrency", "monitor", "outage", "watchdog")
}
ALLOWED: dict[str, set[str]] = {
    "readings": set(),
    "broker": set(),
    "stores": {"readings"},
    "inventory": {"readings"},
    "ingest": {"broker", "readings", "stores", "inventory", *SERVICE_HELPERS},
    "health": {"broker.client", "broker.errors", "broker.backoff", "readings", "inventory", "stores", *SERVICE_HELPERS},
    "api": {"readings", "stores", "inventory", "health", "broker.client", "broker.errors", "telemetry_site.env"},
    "dashboard": {"api", "health", "inventory", "readings", "stores"},
}
# How a command gets its settings and its stop signal. Of the rooms these import readings.times alone.
COMMAND_HELPERS = {"telemetry_site.flags", "telemetry_site.service", "telemetry_site.env", "telemetry_site.options"}
IO_MODULES = {"asyncio", "socket", "ssl", "selectors", "django"}
# What judges readings is a function of them alone.
PURE_HEALTH = {"engine", "rules"}
# The broker's event loop, sockets and threads live in these alone; the protocol and the log know of none.
BROKER_SHELL = {"server", "client", "tls.py"}


def modules(room: str) -> list[Path]:
    return sorted(path for path in (ROOT / room).rglob("*.py") if "migrations" not in path.parts)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it the import stands; `from a import b` counts as a.b too."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*package[: len(package) - node.level + 1], node.module or ""])
                if node.level
                else node.module or ""
            )
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def is_within(name: str, allowed: set[str]) -> bool:
    return any(name == one or name.startswith(one + ".") for one in allowed)


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_only_the_rooms_below_it(room: str) -> None:
    wrong = []
    for path in modules(room):
        allowed = ALLOWED[room] | {room}
        if "commands" in path.parts:
            allowed = allowed | COMMAND_HELPERS
        for name in imports(path):
            parts = name.split(".")
            # `from broker import client` yields broker and broker.client: the package alone holds nothing.
            if (
                parts[0] in ROOMS
                and not is_within(name, allowed)
                and not any(one.startswith(name + ".") for one in allowed)
            ):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("room", ["broker", "readings"])
def test_protocol_log_and_codec_do_no_io_of_their_own(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(room)
        if "commands" not in path.parts and not (room == "broker" and path.relative_to(ROOT).parts[1] in BROKER_SHELL)
        for name in imports(path)
        if name.split(".")[0] in IO_MODULES
    ]
    assert wrong == []


def test_what_judges_readings_does_no_io_of_its_own() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("health")
        if path.relative_to(ROOT).parts[1] in PURE_HEALTH and path.stem != "current"
        for name in imports(path)
        if name.split(".")[0] in IO_MODULES
    ]
    assert wrong == []


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_the_tests_of_a_room_cover_each_of_its_modules(room: str) -> None:
    """A test imports or names the module, or, for what is tested from outside (views, admin), bears its name."""
    tested = {name for path in (ROOT / "tests").rglob("*.py") for name in (*imports(path), *named(path))}
    wired = {"apps", "urls", "wsgi", "settings", "gunicorn_logs", "sessions"}
    missing = [
        name
        for path in modules(room)
        if path.name != "__init__.py" and path.stem not in wired and "commands" not in path.parts
        for name in [".".join(path.relative_to(ROOT).with_suffix("").parts)]
        if name not in tested and not list((ROOT / "tests" / room).rglob(f"test_{path.stem}.py"))
    ]
    assert missing == []


def named(path: Path) -> Iterator[str]:
    """The dotted names that stand in a file's strings, as those given to monkeypatch or to a child process."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"\b[a-z_]+(?:\.[a-z_]+)+", node.value)


def _modules_of_the_product() -> dict[str, Path]:
    paths = (path for room in ROOMS for path in modules(room))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def test_no_module_imports_itself_through_others() -> None:
    """Imports for types alone count too: whoever reads one of such files has to read all of them."""
    known = _modules_of_the_product()
    graph = {
        name: {target for target in imports(path) if target in known and target != name} for name, path in known.items()
    }
    # What `from a.b import c` gives besides a.b.c is a.b, which matters only where c is no module.
    for name, path in known.items():
        for base, alias in _from_imports(path):
            if f"{base}.{alias}" in known:
                graph[name].discard(base)
    assert [circle for circle in _circles(graph) if len(circle) > 1] == []


def test_no_two_classes_of_the_product_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for name, path in _modules_of_the_product().items():
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef) and node.name != "Command":
                places.setdefault(node.name.lstrip("_"), []).append(name)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_module_repeats_its_package_as_a_prefix() -> None:
    names = [name.split(".") for name in _modules_of_the_product()]
    assert [parts for parts in names if len(parts) > 1 and parts[-1].startswith(f"{parts[-2]}_")] == []


def _from_imports(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.module, alias.name) for alias in node.names)


def _circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The sets of modules that reach one another, sorted."""
    reach = {name: _reached(graph, name) for name in graph}
    circles = {frozenset({name, *(other for other in reach[name] if name in reach[other])}) for name in graph}
    return sorted(sorted(circle) for circle in circles)


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for name in graph[waiting.pop()] - found:
            found.add(name)
            waiting.append(name)
    return found
