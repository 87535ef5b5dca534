"""telemetry_site.logs: as text and as JSON, as much as is wanted; and what the services really write."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import signal
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from telemetry_site import logs
from telemetry_site.logs import log_config, process_ids, request_id
from tests.api.serving import START_SECONDS, environment, manage, serving
from tests.ingest.captures import write_capture
from tests.ingest.processes import Fleet, wait_until

CONFIGURED = (
    "",
    "django",
    "django.request",
    "django.security.DisallowedHost",
    "psycopg.pool",
    *logs.ROOMS,
    "api.errors",
    "api.views.probes",
)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave logging as pytest and Django had it."""
    before = {
        name: (each := logging.getLogger(name), each.level, each.handlers[:], each.filters[:], each.propagate)
        for name in CONFIGURED
    }
    yield
    for each, level, handlers, filters, propagate in before.values():
        each.setLevel(level)
        each.handlers[:], each.filters[:], each.propagate = handlers, filters, propagate


def configure(stream: io.StringIO, form: str = "human", verbosity: int = 1, ids: dict[str, str] | None = None) -> None:
    config = log_config(form, verbosity, ids or {})
    config["handlers"]["stderr"]["stream"] = stream
    # dictConfig adds filters to those that are there, which know what other tests have logged.
    for name in CONFIGURED:
        logging.getLogger(name).filters.clear()
    logging.config.dictConfig(config)


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_json_line_has_time_level_ids_and_the_fields_that_its_message_names(stream: io.StringIO) -> None:
    configure(stream, "json", ids={"service": "collect", "instance": "c-1"})
    logging.getLogger("ingest.x").info("from offset %(offset)d\n", {"offset": 7})
    (line,) = objects(stream.getvalue())
    assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
    assert line == {
        "level": "INFO",
        "logger": "ingest.x",
        "message": "from offset 7\n",
        "event": "from offset %(offset)d\n",
        "offset": 7,
        "service": "collect",
        "instance": "c-1",
    }


def test_an_exception_stays_on_its_json_line(stream: io.StringIO) -> None:
    configure(stream, "json")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("api.x").exception("it failed")
    (line,) = objects(stream.getvalue())
    assert "ValueError: two\nlines" in line["exception"]


def test_fields_that_json_does_not_know_are_told_as_text(stream: io.StringIO) -> None:
    configure(stream, "json")
    logging.getLogger("api.x").info("at %(path)s", {"path": Path("/x")})
    assert objects(stream.getvalue())[0]["path"] in {"/x", str(Path("/x"))}


@pytest.mark.parametrize("form", ["human", "json"])
def test_a_record_carries_the_id_of_its_request(form: str, stream: io.StringIO) -> None:
    configure(stream, form)
    token = request_id.set("r-1")
    try:
        logging.getLogger("api.x").warning("no store")
    finally:
        request_id.reset(token)
    logging.getLogger("api.x").warning("outside")
    first, second = stream.getvalue().splitlines()
    assert "r-1" in first
    assert "request" not in second
    if form == "json":
        assert json.loads(first)["request_id"] == "r-1"


@pytest.mark.parametrize(
    ("verbosity", "told"),
    [
        (0, ["ours warning", "others warning"]),
        (1, ["ours info", "ours warning", "others info", "others warning"]),
        (2, ["ours debug", "ours info", "ours warning", "others info", "others warning"]),
        (3, ["ours debug", "ours info", "ours warning", "others debug", "others info", "others warning"]),
    ],
)
def test_verbosity_is_as_django_means_it(verbosity: int, told: list[str], stream: io.StringIO) -> None:
    configure(stream, verbosity=verbosity)
    for whose, name in (("ours", "broker.x"), ("others", "aiohttp.x")):
        for level in ("debug", "info", "warning"):
            getattr(logging.getLogger(name), level)("%s %s", whose, level)
    assert [line.split(": ", 1)[1] for line in stream.getvalue().splitlines()] == told


def test_what_repeats_while_a_partner_is_away_is_told_once_a_minute(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(stream)
    now = 1000.0
    monkeypatch.setattr("telemetry_site.logs.time.monotonic", lambda: now)
    for _ in range(3):
        logging.getLogger("api.errors").warning("the store does not answer: %s", now)
        logging.getLogger("api.errors").warning("another thing")
        now += 25.0
    assert [line.split(": ", 1)[1] for line in stream.getvalue().splitlines()] == [
        "the store does not answer: 1000.0",
        "another thing",
    ]
    now += 25.0
    logging.getLogger("api.errors").warning("the store does not answer: %s", now)
    assert "1100.0" in stream.getvalue()


@pytest.mark.parametrize(
    ("argv", "ids"),
    [
        (["/app/manage.py", "collect", "-v2"], {"service": "collect", "instance": "c"}),
        (["manage.py", "stream"], {"service": "stream", "instance": "s"}),
        (["manage.py", "watch", "--once"], {"service": "watch", "instance": "w"}),
        (["manage.py", "runbroker"], {"service": "runbroker"}),
        (["/x/site-packages/gunicorn/__main__.py", "--config", "x"], {"service": "serve"}),
        (["manage.py"], {"service": "manage.py"}),
    ],
)
def test_a_process_knows_what_it_is(argv: list[str], ids: dict[str, str]) -> None:
    assert process_ids(argv, "c", "s", "w") == ids


@pytest.mark.acceptance
def test_every_line_of_every_service_is_json_when_it_is_to_be(tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "capture.csv", gpus=4, samples=2)
    fleet = Fleet(tmp_path / "state", CSV_PATH=capture, LOG_FORMAT="json", COLLECTOR_ID="c-7", INSTANCE_ID="s-7")
    fleet.migrate()
    try:
        for service in fleet.services:
            service.start()
        assert fleet.streamer.wait() == 0
        wait_until(lambda: "new GPUs" in fleet.collector.log, "the collector to store")
        assert fleet.collector.stop()[0] == 0
        assert fleet.broker.stop()[0] == 0
    finally:
        fleet.kill_all()
    broker, collector, streamer = (objects(service.log) for service in fleet.services)
    assert {line["service"] for line in broker} == {"runbroker"}
    assert {(line["service"], line["instance"]) for line in collector} == {("collect", "c-7")}
    assert {(line["service"], line["instance"]) for line in streamer} == {("stream", "s-7")}
    subscribed = next(line for line in broker if "subscribed" in line["event"])
    assert (subscribed["subscriber_id"], subscribed["offset"]) == ("c-7", 0)
    assert next(line for line in collector if line["event"].startswith("stopped"))["stored"] == 24
    assert next(line for line in streamer if "sent and answered" in line["event"])["readings"] == 24


@pytest.mark.acceptance
def test_the_web_service_and_gunicorn_log_as_told_and_tell_of_each_request_when_asked_to(tmp_path: Path) -> None:
    subprocess.run(manage("migrate", "-v0"), env=environment(tmp_path), check=True, timeout=START_SECONDS)
    with serving(tmp_path, "-v", "2", LOG_FORMAT="json") as service:
        assert service.get("/health", **{"X-Request-ID": "asked-1"}).headers["X-Request-ID"] == "asked-1"
        assert service.stop(signal.SIGTERM) == 0
    lines = objects("\n".join(service.lines))
    assert {line["service"] for line in lines} == {"serve"}
    assert any(line["logger"] == "gunicorn.error" and "Booting worker" in line["message"] for line in lines)
    asked = next(line for line in lines if line.get("path") == "/health")
    assert (asked["request_id"], asked["status"], asked["level"]) == ("asked-1", 200, "DEBUG")


@pytest.mark.acceptance
@pytest.mark.parametrize("command", ["runbroker", "collect", "stream"])
def test_a_quiet_service_says_nothing_while_all_is_well(command: str, tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "state", CSV_PATH=write_capture(tmp_path / "capture.csv"), VERBOSITY=0)
    fleet.migrate()
    try:
        fleet.broker.start()
        wait_until(lambda: (tmp_path / "state" / "broker").exists(), "the broker")
        arguments = {"collect": ["--once"], "stream": []}.get(command)
        if arguments is not None:
            service = next(each for each in fleet.services if command in each._arguments)
            service.start(*arguments)
            assert service.wait() == 0
            assert service.log == "" or "broker at" in service.log  # which may not have listened yet
        wait_until(lambda: fleet.broker.stop()[0] == 0, "the broker to stop")
        assert fleet.broker.log == ""
    finally:
        fleet.kill_all()


EVIL = "node\n2026-01-31 12:00:00,000 INFO    broker: all is well\x1b[2J\u202e\x9b1m\r"


@pytest.mark.parametrize("form", ["human", "json"])
def test_no_text_of_a_client_starts_a_line_or_reaches_the_terminal(form: str, stream: io.StringIO) -> None:
    configure(stream, form)
    logging.getLogger("broker.x").warning("%s has connected", EVIL)
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    assert "all is well" in line


@pytest.mark.parametrize("form", ["human", "json"])
def test_no_text_of_a_client_starts_a_line_of_a_traceback(form: str, stream: io.StringIO) -> None:
    configure(stream, form)
    try:
        raise ValueError(EVIL)
    except ValueError:
        logging.getLogger("api.x").exception("it failed")
    lines = stream.getvalue().split("\n")[:-1]
    assert all(line.isprintable() for line in lines)
    assert [line for line in lines[1:] if not line.startswith("    ")] == []
