"""The main job as a user runs it: one command, a capture goes in, answers come out of the API."""

from __future__ import annotations

import csv
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ingest.simulator.capture import CaptureShape, write_capture
from ingest.simulator.fleet import DEFAULT_METRICS, HEALTH_METRICS
from readings.times import parse_time

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

MANAGE = Path(__file__).resolve().parents[2] / "manage.py"
PATIENCE = 60.0


@dataclass
class Run:
    """A running pipeline: its process, and the lines it has printed."""

    process: subprocess.Popen[str]
    lines: list[str]
    _new: queue.Queue[str | None]

    def until(self, pattern: str) -> re.Match[str]:
        """The first line, already printed or yet to come, that matches."""
        for line in self.lines:
            if match := re.search(pattern, line):
                return match
        deadline = time.monotonic() + PATIENCE
        while (line_or_end := self._new.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
            self.lines.append(line_or_end)
            if match := re.search(pattern, line_or_end):
                return match
        raise AssertionError(f"no line matched {pattern!r}:\n" + "\n".join(self.lines))

    def rest(self) -> str:
        """Everything printed, once the process has ended."""
        while (line := self._new.get(timeout=PATIENCE)) is not None:
            self.lines.append(line)
        return "\n".join(self.lines)


@contextmanager
def pipeline(state: Path, **environ: str) -> Iterator[Run]:
    """``manage.py pipeline`` on free ports and a state folder of its own; killed at the end if it still runs."""
    ports = {"TCP_ADDR": ":0", "HTTP_ADDR": ":0", "PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, str(MANAGE), "pipeline"],
        env={
            **os.environ,
            "STATE_DIR": str(state),
            "COLLECT_INTERVAL": "200ms",
            "FLUSH_INTERVAL": "200ms",
            **ports,
            **environ,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    new: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            new.put(line.rstrip("\n"))
        new.put(None)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield Run(process, [], new)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def wait_for(what: Callable[[], bool]) -> None:
    """Ask again until it holds: the collector stores a moment after the streamer is done."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def all_telemetry(base: str) -> list[dict[str, Any]]:
    """Every reading there is, page by page."""
    rows: list[dict[str, Any]] = []
    url: str | None = f"{base}/api/v1/telemetry?page_size=1000"
    while url:
        page = get(url)
        rows += page["data"]
        url = page["next"]
    return rows


def stored(base: str) -> int:
    return int(get(f"{base}/api/v1/stats")["store"]["readings"])


def all_is_committed(base: str) -> bool:
    """Whether the collector has stored all that is in the log, and the inventory knows of it, and the watch has judged it."""
    stats = get(f"{base}/api/v1/stats")
    newest = stats["broker"]["latest_offset"]
    return newest >= 0 and [each["committed_offset"] for each in stats["subscribers"]] == [newest, newest]


@pytest.fixture(params=["synthetic", "real"])
def capture(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A made-up capture always, and the real one where it is."""
    if request.param == "real":
        return Path(request.getfixturevalue("real_capture"))
    write_capture(tmp_path / "made.csv", CaptureShape(hosts=3, gpus_per_host=4, samples=2))
    return tmp_path / "made.csv"


def test_a_capture_goes_in_and_every_reading_comes_out(capture: Path, tmp_path: Path) -> None:
    expected = rows_of(capture)
    with pipeline(tmp_path / "state", CSV_PATH=str(capture), TIMESTAMPS="source", RETENTION_PERIOD="0") as run:
        base = run.until(r"(http://\S+)/api/v1/gpus")[1]
        assert re.search(r"password \S{12,}", run.until(r"user admin, password.*")[0])
        run.until("streamer is done")
        wait_for(lambda: all_is_committed(base))
        assert stored(base) == len(expected)
        gpus = get(f"{base}/api/v1/gpus")
        assert gpus["count"] == len({row["uuid"] for row in expected})
        assert set(gpus["data"]) == {row["uuid"] for row in expected}
        assert get(f"{base}/api/v1/hosts")["count"] == len({row["Hostname"] for row in expected})
        answered = {
            (row["uuid"], row["metric_name"], parse_time(row["timestamp"])): row["value"] for row in all_telemetry(base)
        }
        assert answered == {
            (row["uuid"], row["metric_name"], parse_time(row["timestamp"])): float(row["value"]) for row in expected
        }
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(PATIENCE) == 0, run.rest()


def test_an_old_capture_is_shifted_to_now_and_nothing_of_it_is_lost(capture: Path, tmp_path: Path) -> None:
    expected = rows_of(capture)
    with pipeline(tmp_path / "state", CSV_PATH=str(capture)) as run:
        base = run.until(r"(http://\S+)/api/v1/gpus")[1]
        run.until("streamer is done")
        wait_for(lambda: stored(base) == len(expected))
        rows = all_telemetry(base)
        newest = max(parse_time(row["timestamp"]) for row in expected)
        shift = parse_time(rows[0]["timestamp"]) - newest
        assert abs(parse_time(rows[0]["timestamp"]) - time.time_ns()) < PATIENCE * 2e9
        assert {
            (row["uuid"], row["metric_name"], parse_time(row["timestamp"]) - shift, row["value"]) for row in rows
        } == {(row["uuid"], row["metric_name"], parse_time(row["timestamp"]), float(row["value"])) for row in expected}


def oldest_age(base: str) -> float:
    """Seconds since the oldest reading in the store."""
    return (time.time_ns() - parse_time(get(f"{base}/api/v1/stats")["store"]["oldest"])) / 1e9


def test_without_a_source_it_runs_the_demo_with_its_last_hour(tmp_path: Path) -> None:
    with pipeline(tmp_path / "state", STORAGE_TYPE="memory", SCRAPE_INTERVAL="1s") as run:
        base = run.until(r"Dashboard +(http://\S+)/$")[1]  # no terminal: nothing is offered
        run.until("SYNTHETIC fleet of 8 hosts")
        assert next(line.split()[0] for line in run.lines if line.startswith("  ")) == "Dashboard"
        wait_for(lambda: stored(base) >= 122 * 64 * len(HEALTH_METRICS))
        wait_for(lambda: get(f"{base}/api/v1/gpus")["count"] == 64)  # the inventory follows within a second
        assert 3500 < oldest_age(base) < 3700
        gpus = get(f"{base}/api/v1/gpus")
        assert all(gpu["hostname"].startswith("synthetic-") for gpu in gpus["gpus"])
        wait_for(lambda: get(f"{base}/api/v1/events?state=open,unknown,closed")["count"] > 0)  # the demo has faults
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(PATIENCE) == 0, run.rest()


def readings_of_a_run(state: Path, least: int) -> int:
    """How many readings a run of the demo on one host stores, which ends when it has stored ``least``."""
    with pipeline(state, SIM_HOSTS="1", SIM_METRICS="default", SCRAPE_INTERVAL="1s") as run:
        base = run.until(r"Dashboard +(http://\S+)/$")[1]
        before = stored(base)
        wait_for(lambda: stored(base) >= before + least)
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(PATIENCE) == 0, run.rest()
        return int(re.findall(r"(\d+) readings stored", run.rest())[-1])


def test_a_second_run_of_the_demo_does_not_invent_the_past_again(tmp_path: Path) -> None:
    sample = 8 * len(DEFAULT_METRICS)
    first = readings_of_a_run(tmp_path / "state", 121 * sample)
    assert readings_of_a_run(tmp_path / "state", 2 * sample) < first / 2


def test_what_is_asked_for_is_not_the_demo(tmp_path: Path) -> None:
    environ = {"SOURCE": "simulate", "SCRAPE_INTERVAL": "200ms"}
    with pipeline(tmp_path / "state", **environ) as run:
        base = run.until(r"(http://\S+)/api/v1/gpus")[1]
        run.until("SYNTHETIC fleet of 4 hosts")
        wait_for(lambda: stored(base) >= 3 * 32 * len(DEFAULT_METRICS))
        assert oldest_age(base) < PATIENCE
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(PATIENCE) == 0, run.rest()


def test_when_a_service_dies_the_others_stop_and_the_end_is_not_clean(tmp_path: Path) -> None:
    with pipeline(tmp_path / "state", LOOP="true", RATE="100") as run:
        run.until(r"Ctrl-C stops")
        os.kill(json.loads((tmp_path / "state" / "broker" / ".lock").read_text())["pid"], signal.SIGKILL)
        run.until("broker ended with signal SIGKILL; stopping the others")
        assert run.process.wait(PATIENCE) == 1
        assert "all services have stopped" in run.rest()


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"CSV_PATH": "/nonexistent/capture.csv"}, r"/nonexistent/capture\.csv"),
        ({"BATCH_SIZE": "abc"}, r"^error: BATCH_SIZE .*not a whole number"),
    ],
)
def test_bad_input_ends_it_with_a_line_that_names_it(environ: dict[str, str], line: str, tmp_path: Path) -> None:
    with pipeline(tmp_path / "state", **environ) as run:
        run.until(line)
        assert run.process.wait(PATIENCE) != 0


def test_a_port_in_use_is_named_before_anything_starts(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pipeline(tmp_path / "state", PORT=str(taken.getsockname()[1])) as run,
    ):
        run.until(r"PORT: cannot listen on 127\.0\.0\.1:\d+: Address already in use")
        assert run.process.wait(PATIENCE) == 1
        assert "broker" not in run.rest()
