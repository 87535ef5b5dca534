from __future__ import annotations

import asyncio
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from pytest_django import Settings

from ingest.management.commands import stream
from tests.ingest.captures import write_capture
from tests.ingest.exporter.test_scraper import saying, serving
from tests.ingest.processes import Fleet, wait_until
from tests.ports import free_port


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path / "state")
    yield fleet
    fleet.kill_all()


def test_a_source_that_is_none_is_one_line(settings: Settings, tmp_path: Path) -> None:
    settings.STATE_DIR = tmp_path
    for path, said in (("", "CSV_PATH"), (str(tmp_path), "holds no .csv"), (str(tmp_path / "x.csv"), "no such file")):
        settings.CSV_PATH = path
        with pytest.raises(CommandError, match=said):
            call_command("stream", stderr=StringIO())


@pytest.mark.acceptance
def test_it_exits_0_when_every_batch_is_answered(fleet: Fleet, tmp_path: Path) -> None:
    fleet.environ["CSV_PATH"] = str(write_capture(tmp_path / "capture.csv"))
    fleet.streamer.start()
    fleet.streamer.wait_for("waiting until")
    fleet.broker.start()
    assert fleet.streamer.wait() == 0
    assert "done: 12 readings in 1 batches sent and answered" in fleet.streamer.log
    assert "\r" not in fleet.streamer.log
    assert fleet.broker.stop()[0] == 0


@pytest.mark.acceptance
def test_sigterm_ends_it_in_time_and_the_next_run_sends_the_rest(fleet: Fleet, tmp_path: Path) -> None:
    fleet.environ |= {"CSV_PATH": str(write_capture(tmp_path / "capture.csv", samples=10)), "RATE": "40"}
    fleet.broker.start()
    fleet.broker.wait_for("listening on")
    fleet.streamer.start()
    fleet.streamer.wait_for("streaming ")
    time.sleep(0.7)  # into the run
    status, seconds = fleet.streamer.stop()
    assert status == 0
    assert seconds < 8
    assert "stopped: " in fleet.streamer.log
    fleet.environ["RATE"] = "0"
    fleet.streamer.start()
    assert fleet.streamer.wait() == 0
    sent = [int(number) for number in re.findall(r"(?:stopped|done): (\d+) readings", fleet.streamer.log)]
    assert len(sent) == 2
    assert sum(sent) == 120
    assert all(sent)
    assert "resuming at line" in fleet.streamer.log


@pytest.mark.acceptance
def test_bad_input_is_one_line_and_status_1(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "capture.csv"
    path.write_text("a,b\n1,2\n")
    fleet.environ["CSV_PATH"] = str(path)
    fleet.streamer.start()
    assert fleet.streamer.wait() == 1
    assert fleet.streamer.log.count("\n") == 1
    assert "lacks the columns timestamp, metric_name, value, uuid (or labels_raw)" in fleet.streamer.log


def ask(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.acceptance
def test_streamer_and_collector_tell_of_themselves_where_metrics_addr_says(fleet: Fleet, tmp_path: Path) -> None:
    fleet.environ |= {"CSV_PATH": str(write_capture(tmp_path / "capture.csv", gpus=50)), "RATE": "30"}
    fleet.migrate()
    streamer, collector = free_port(), free_port()
    fleet.collector.start("--metrics-addr", f":{collector}")
    fleet.collector.wait_for("waiting until")
    assert json.loads(ask(collector, "/health")[1])["status"] == "degraded"
    status, text = ask(collector, "/ready")
    assert (status, json.loads(text)["reasons"][0][:21]) == (503, "the broker at 127.0.0")
    fleet.broker.start()
    fleet.broker.wait_for("listening on")
    fleet.streamer.start("--metrics-addr", f":{streamer}")
    wait_until(lambda: "readings_stored_total 0.0" not in ask(collector, "/metrics")[1], "the first stored reading")
    for port in (streamer, collector):
        assert json.loads(ask(port, "/health")[1]) == {"status": "healthy", "reasons": []}
        assert ask(port, "/ready")[0] == 200
    figures = ask(streamer, "/metrics")[1]
    assert "gpu_telemetry_streamer_capture_left_seconds " in figures
    assert "gpu_telemetry_streamer_readings_sent_total 0.0" not in figures
    assert "gpu_telemetry_collector_lag_messages " in ask(collector, "/metrics")[1]


def test_a_dry_run_of_a_live_source_counts_what_a_collector_would_refuse(settings: Settings, tmp_path: Path) -> None:
    settings.STATE_DIR, settings.SOURCE, settings.SIM_FAULTS = tmp_path, "simulate", ("spike", "blank")
    settings.SCRAPE_INTERVAL = 6.0  # past the first fault
    out = StringIO()
    call_command("stream", "--dry-run", stdout=out)
    assert "refused: blank 2, out_of_range 1" in out.getvalue()


def test_a_dry_run_tells_the_three_kinds_apart_and_of_exporters_without_gpus(
    settings: Settings, tmp_path: Path
) -> None:
    async def asked() -> str:
        page = (
            'DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-1",bad} 5\nDCGM_FI_DEV_CPU_UTIL_TOTAL{cpu="0"} 5\n'
            'DCGM_FI_DEV_GPU_UTIL{gpu="1",UUID="GPU-2"} NaN\n'
        )
        async with serving(saying(page)) as good, serving(saying("# HELP x y\n")) as empty:
            settings.STATE_DIR, settings.SOURCE, settings.TARGETS = tmp_path, "dcgm", [good, empty]
            return await asyncio.to_thread(lambda: asyncio.run(stream._try())[1])

    text = asyncio.run(asked())
    assert "1 readings\nrefused: non_finite 1\nremarked on: bad_label 1\npassed over: not_a_gpu 1\n" in text
    assert "2 of 2 exporters are up\n1 of them without one GPU, such as http://localhost" in text
    assert not list(tmp_path.iterdir())


def test_a_run_that_found_nothing_is_no_success(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "capture.csv"
    path.write_text(
        "timestamp,metric_name,uuid,value\n"
        "yesterday,x,GPU-1-2,5\n"
        f"2025-07-18T20:42:34Z,x,GPU-1-2,5O\x1b[31m{'9' * 5000}\n"
        "2025-07-18T20:42:34Z,x,GPU-1-2,5P\n"
    )
    settings.STATE_DIR, settings.CSV_PATH = tmp_path, str(path)
    out = StringIO()
    with pytest.raises(CommandError, match="no reading was found"):
        call_command("stream", "--dry-run", stdout=out)
    text = out.getvalue()
    assert text.startswith("0 readings\n")
    assert "refused: bad_number 2, bad_timestamp 1" in text
    assert re.search(r"  bad_number: '.*' line 3: value '5O", text)
    assert re.search(r"  bad_timestamp: '.*' line 2: bad time 'yesterday'", text)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) < 400
    with path.open("a") as file:
        file.write("2025-07-18T20:42:34Z,x,GPU-1-2,5\n")
    call_command("stream", "--dry-run", stdout=out)


@pytest.mark.acceptance
def test_a_capture_without_one_reading_ends_with_its_reasons_and_status_1(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "capture.csv"
    path.write_text("timestamp,metric_name,uuid,value\n2025-07-18T20:42:34Z,x,GPU-1-2,5O\n")
    fleet.environ["CSV_PATH"] = str(path)
    fleet.broker.start()
    fleet.streamer.start()
    assert fleet.streamer.wait() == 1
    assert "none gave a reading" in fleet.streamer.log
    assert "bad_number: line 2: value '5O'" in fleet.streamer.log


def test_the_truth_is_of_a_synthetic_fleet(settings: Settings, tmp_path: Path) -> None:
    settings.STATE_DIR, settings.SOURCE, settings.SIM_FAULTS = tmp_path, "simulate", ("temp_high@9/0+5s",)
    with pytest.raises(CommandError, match="SIM_FAULTS: 'temp_high@9/0"):
        call_command("stream")
    with pytest.raises(CommandError, match="--truth is for a synthetic fleet that is streamed"):
        call_command("stream", "--truth", tmp_path / "truth.jsonl", "--dry-run")
    settings.SOURCE = "csv"
    with pytest.raises(CommandError, match="--truth is for a synthetic fleet that is streamed"):
        call_command("stream", "--truth", tmp_path / "truth.jsonl")
