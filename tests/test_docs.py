"""The pages that people read: links lead somewhere, and every command, path, setting and example works as it is printed."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import socket
import struct
import subprocess
import sys
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from django.core.management import CommandError, get_commands, load_command_class
from django.http import QueryDict
from django.urls import resolve

from api.params import EXPORT_FORMATS, read_parameters
from health.rules.conditions import METRICS
from readings.batch import decode
from readings.checks import PASSED_OVER, REASONS, REMARKS
from telemetry_site.options import BY_NAME, OPTIONS
from tests.api.serving import environment
from tests.broker.process import broker_process
from tests.test_makefile import targets

ROOT = Path(__file__).resolve().parents[1]
OURS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
PAGES = [*OURS, *sorted((ROOT / "deploy").rglob("*.md")), *sorted((ROOT / "helm").rglob("*.md"))]
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
HOST = "http://127.0.0.1:8080"
GPU = "GPU-…"


def code(page: Path) -> Iterator[str]:
    """The lines of a page's code: fenced and indented blocks, joined where they end with a backslash, and code in the text."""
    text = re.sub(r"\\\n\s*", "", page.read_text())
    fenced = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
    for block in fenced.findall(text):
        yield from block.splitlines()
    for line in fenced.sub("", text).splitlines():
        yield from [line.strip()] if line.startswith("    ") else re.findall(r"`([^`]+)`", line)


def commands(page: Path, program: str) -> Iterator[list[str]]:
    """The words after ``program`` wherever the page's code runs it, without comments and what follows in a pipe."""
    for line in code(page):
        for match in re.finditer(
            rf"(?<![\w/.-]){re.escape(program)}(?= )([^|;&)]*)", re.sub(r"(^| )# .*| {3,}.*", "", line)
        ):
            try:
                words = shlex.split(re.sub(r"[><] *\S+", "", match[1]))
            except ValueError:  # a quote of the surrounding text
                words = match[1].split()
            yield words


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)}


@EVERY_PAGE
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if urlsplit(link).scheme:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_can_be_reached_from_the_first_one() -> None:
    reached, new = set(), {ROOT / "README.md"}
    while new:
        reached |= new
        links = {page.parent / link for page in new for link in re.findall(r"\]\(([^)#:]+\.md)", page.read_text())}
        new = {link.resolve() for link in links} - reached
    assert {page for page in PAGES if page not in reached} == set()


def test_the_first_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@EVERY_PAGE
def test_make_targets_are_there(page: Path) -> None:
    for words in commands(page, "make"):
        for word in words:
            if re.fullmatch(r"[a-z-]+", word) and not word.startswith("-"):
                assert word in targets(), f"make {word}"


def parsers(parser: ArgumentParser) -> Iterator[ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for each in action.choices.values():
                yield from parsers(each)


@EVERY_PAGE
def test_commands_of_manage_py_are_there_with_the_arguments_that_are_said(page: Path) -> None:
    known = get_commands()
    for name, *arguments in commands(page, "manage.py"):
        if not re.fullmatch("[a-z]+", name):  # SERVICE, and the like
            continue
        assert name in known, name
        app = known[name]
        command = load_command_class(app, name) if isinstance(app, str) else app
        parser = command.create_parser("manage.py", name)
        flags = {flag for each in parsers(parser) for flag in each._option_string_actions}
        assert [word for word in arguments if re.match("--.", word) and word.partition("=")[0] not in flags] == []
        if not arguments or re.search(r"[|…]|^[A-Z]+$", " ".join(arguments)):
            continue
        try:
            parsed = vars(parser.parse_args(arguments))
        except CommandError as error:
            assert "arguments are required" in str(error), f"manage.py {name} {' '.join(arguments)}: {error}"  # noqa: PT017
            continue  # the beginning of one, in the text
        for option in OPTIONS:  # the flags that are settings have values that these take
            if isinstance(value := parsed.get(option.name), str) and option.name != "VERBOSITY":
                option.read({option.name: value})


@EVERY_PAGE
def test_settings_have_values_that_they_take(page: Path) -> None:
    for line in code(page):
        for name, value in re.findall(r"(?<![\w.])([A-Z][A-Z_]+)=([\w.:/,@+-]+)(?![\w$(…])", line):
            if name in BY_NAME and value != "i/n":
                BY_NAME[name].read({name: value})


@EVERY_PAGE
def test_paths_of_the_api_are_there_with_their_parameters(page: Path) -> None:
    for line in code(page):
        for address in re.findall(
            rf"(?:(?<={HOST})|(?<![\w.:/]))/(?:api|swagger|redoc|health|ready|metrics)[^\s'\")|,]*", line
        ):
            path, _, query = address.partition("?")
            view: Any = resolve(unquote(path.rstrip(".").replace(GPU, "GPU-1").replace("{uuid}", "GPU-1"))).func
            assert view.__name__ != "unknown_path", address
            if not query:
                continue
            given = QueryDict(query, mutable=True)
            for form in given.pop("format", []):
                assert form in EXPORT_FORMATS
            read_parameters(given, view.cls.parameters)


@EVERY_PAGE
def test_files_and_modules_of_the_repository_are_there(page: Path) -> None:
    rooms = "api|bench|broker|ci|deploy|docs|health|helm|ingest|inventory|readings|stores|telemetry_site|tests"
    made_or_elsewhere = (
        r"deploy/(?:\.env|settings\.env|captures.*|certificates)|broker/(?:format|checkpoint|commits|\*\.log)"
    )
    for line in code(page):
        for path in re.findall(rf"(?<![\w/.:-])((?:{rooms})/[\w./*-]*|\.ci/\w+)", line):
            assert re.fullmatch(made_or_elsewhere, path) or (ROOT / path).exists(), path
        for module in re.findall(r"(?:-m |^)((?:bench|tests|ci)\.[\w.]+)(?= |$)", line):
            assert importlib.util.find_spec(module), module


# Said to make, to the tests or to a shell, not to a service.
OTHERS = {
    "INFLUX", "ORG", "BUCKET", "PASSWORD", "DOCKER_REGISTRY", "PYTHON", "CAPTURE", "TOKEN", "VERSION", "NAME", "PATH",
    "PYTEST_ARGS", "PYTEST_WORKERS", "GRAFANA_PASSWORD",
}  # fmt: skip
OTHER_KINDS = ("DCGM_", "GPU_I_", "REQUIRE_", "FAULT_")


def names(text: str) -> set[str]:
    """What looks like the name of an environment variable: NAME= or $NAME, and whatever has an underscore in it."""
    return {
        *re.findall(r"(?<![-\w.])([A-Z][A-Z0-9_]{2,})=", text),
        *re.findall(r"\$\{?([A-Z][A-Z0-9_]{2,})", text),
        *re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", text),
    }


def is_known(name: str) -> bool:
    option = BY_NAME.get(name.removesuffix("_FILE"))
    if option is not None:
        return option.secret or not name.endswith("_FILE")
    return name in OTHERS or name in METRICS or name.startswith(OTHER_KINDS)


@EVERY_PAGE
def test_a_name_that_people_read_is_a_setting(page: Path) -> None:
    assert sorted(name for name in names(page.read_text()) if not is_known(name)) == []


def test_every_secret_is_named_where_it_says_that_secrets_come_from_files() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith("- Secrets ("))
    named = re.findall(r"`(\w+)`", line.partition(")")[0])
    assert sorted(named) == sorted(option.name for option in OPTIONS if option.secret)


@EVERY_PAGE
def test_ports_that_people_read_are_those_of_the_settings(page: Path) -> None:
    ports = set(re.findall(r"(?:127\.0\.0\.1|localhost):(\d{4,5})\b", page.read_text()))
    own = {BY_NAME["PORT"].default, *(BY_NAME[name].default.rpartition(":")[2] for name in ("TCP_ADDR", "HTTP_ADDR"))}
    assert ports <= own | {"8086", "9090", "3000"}  # of InfluxDB, Prometheus and Grafana


def test_pictures_are_small_and_each_is_shown() -> None:
    pictures = sorted((ROOT / "docs" / "images").glob("*.png"))
    shown = "".join(page.read_text() for page in PAGES)
    assert pictures
    for path in pictures:
        assert path.stat().st_size <= 200_000, path.name
        assert f"images/{path.name})" in shown


def test_every_reason_for_a_refusal_is_explained() -> None:
    explained = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "sources.md").read_text(), re.MULTILINE)
    assert {*REASONS, *REMARKS, *PASSED_OVER} <= set(explained)


# docs/protocol.md


def test_every_batch_on_the_page_is_one_without_a_fault() -> None:
    batches = re.findall(r"^```json\n(.*?)^```", PROTOCOL, re.MULTILINE | re.DOTALL)
    decoded = [decode(text.encode()) for text in batches]
    assert [each.refusals for each in decoded] == [[], [], []]
    assert [each.block.count() for each in decoded] == [5, 2, 2]
    assert decoded[0].reported == {"blank": 2}
    # The two rows of the plain form are of one GPU at one time, under DCGM's own names.
    assert [point[1:] for point in decoded[1].block.points] == [(1752871354000000000, [97.0, 612.4])]
    assert decoded[1].block.metric_names == ["DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_POWER_USAGE"]


def exchanges() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """The blocks of the page that begin with a request: what is sent (->) and received (<-)."""
    for block in re.findall(r"(?:^    (?:->|<-) .+\n)+", PROTOCOL, re.MULTILINE):
        lines = [(line[4:6], json.loads(line[7:])) for line in block.splitlines()]
        if lines[0][0] == "->":
            yield lines


def receive(stream: Any) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(stream.read(struct.unpack(">I", stream.read(4))[0]))
    return frame


def test_a_broker_answers_as_the_page_says_and_the_client_on_it_works(tmp_path: Path) -> None:
    volatile = {"c32", "timestamp", "log", "last_c32"}
    with broker_process(tmp_path) as broker:
        port, _ = broker.wait_listening()
        count = 0
        for lines in exchanges():
            with socket.create_connection(("127.0.0.1", port), 10) as connection, connection.makefile("rwb") as stream:
                for direction, expected in lines:
                    if direction == "->":
                        body = json.dumps(expected, separators=(",", ":")).encode()
                        stream.write(struct.pack(">I", len(body)) + body)
                        stream.flush()
                        continue
                    while (received := receive(stream))["type"] == "message" != expected["type"]:
                        pass  # what other examples published
                    assert received.keys() == expected.keys()
                    assert {k: v for k, v in received.items() if k not in volatile} == {
                        k: v for k, v in expected.items() if k not in volatile
                    }
                    count += 1
        assert count >= 7
    with broker_process(tmp_path / "another") as broker:
        port, _ = broker.wait_listening()
        (client,) = re.findall(r"^```python\n(.*?)^```", PROTOCOL, re.MULTILINE | re.DOTALL)
        ran = subprocess.run(
            [sys.executable, "-c", client.replace("9000", str(port))], capture_output=True, text=True, timeout=30
        )
        assert ran.stderr == ""
        assert "'metric_name': 'DCGM_FI_DEV_GPU_UTIL'" in ran.stdout.splitlines()[-1]


# Against a service with readings of a synthetic fleet.


def curls(page: Path) -> list[str]:
    """The page's commands that ask the API on this machine, comments and output left out."""
    found = (re.sub(r"^\$ | +# .*", "", line) for line in code(page))
    return [line for line in found if line.startswith("curl ") and f"{HOST}/api" in line]


MAKE_EVENT = """
from tests.health.building import make_event
print(make_event("made_for_docs", entity="GPU-made-for-docs").pk)
"""


def in_service(state_dir: Path, *arguments: str) -> str:
    """What manage.py prints beside a service with this state."""
    ran = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=environment(state_dir),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return ran.stdout.strip()


@pytest.mark.acceptance
@pytest.mark.timeout(180)
def test_the_commands_that_ask_the_api_get_answers(tmp_path: Path) -> None:
    from tests.telemetry_site.test_pipeline import get, pipeline, stored, wait_for

    if not shutil.which("curl") or not shutil.which("jq"):
        pytest.skip("needs curl and jq")
    lines = [line for page in OURS for line in curls(page)]
    assert len(lines) >= 20
    assert len(curls(ROOT / "README.md")) >= 6
    with pipeline(tmp_path / "state", SCRAPE_INTERVAL="1s") as run:
        base = run.until(r"(http://\S+)/api/v1/gpus")[1]
        wait_for(lambda: stored(base) > 0 and get(f"{base}/api/v1/gpus")["count"] == 64)
        gpu = get(f"{base}/api/v1/gpus")["data"][0]
        token, event = (
            in_service(tmp_path / "state", "apitoken", "create", "docs", "--scope", "admin"),
            in_service(tmp_path / "state", "shell", "--no-imports", "--command", MAKE_EVENT),
        )
        for line in lines:
            command = line.replace(HOST, base).replace(GPU, gpu).replace("$TOKEN", token)
            command = command.replace("/events/1", f"/events/{event}")
            command = command.replace("curl ", "curl --fail-with-body -sS ", 1)
            ran = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60
            )
            assert ran.returncode == 0, f"{line}\n{ran.stdout}\n{ran.stderr}"
            # What is empty here has a filter for another fleet or another time, or goes into a file.
            assert ran.stdout or "-OJ" in line or "jq" in line, line
