"""The main job on InfluxDB: ``make run STORAGE_TYPE=influxdb`` against a server that is up, and what it says when it is not."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from ingest.simulator.capture import CaptureShape, write_capture
from stores.influxdb.client import InfluxConfig
from tests.influxd import Influxd
from tests.ingest.processes import wait_until
from tests.ports import free_port
from tests.telemetry_site.test_pipeline import pipeline

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]


def settings_for(config: InfluxConfig) -> dict[str, str]:
    return {
        "STORAGE_TYPE": "influxdb",
        "INFLUXDB_URL": config.url,
        "INFLUXDB_TOKEN": config.token,
        "INFLUXDB_ORG": config.org,
        "INFLUXDB_BUCKET": config.bucket,
    }


def ask(url: str) -> tuple[int, dict[str, str], bytes]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def test_readings_go_to_the_server_and_answers_come_from_it_until_it_is_away_and_when_it_is_back(
    tmp_path: Path, influxd: Influxd
) -> None:
    server = Influxd(influxd.binary, tmp_path / "influxd")
    try:
        server.start()
        config = server.config()
        capture = tmp_path / "made.csv"
        write_capture(capture, CaptureShape())
        with pipeline(tmp_path / "state", CSV_PATH=str(capture), **settings_for(config)) as run:
            base = run.until(r"API +(http://\S+)/api/v1/gpus")[1]
            run.until("the other services go on until Ctrl-C")
            counting = f"{base}/api/v1/stats"
            wait_until(lambda: json.loads(ask(counting)[2])["readings"]["stored"] == 9600, "all readings")
            assert server.query(config.bucket, 'SELECT count("DCGM_FI_DEV_GPU_UTIL") FROM "gpu"')[0][1] == 960
            readings = f"{base}/api/v1/telemetry?page_size=1000"
            before = ask(readings)
            assert before[0] == 200

            server.kill()
            for path in ("/api/v1/telemetry", "/ready"):
                status, headers, body = ask(base + path)
                assert status == 503
                assert int(headers["Retry-After"]) > 0
                assert "store" in json.loads(body)["message"]
            assert ask(f"{base}/health")[0] == 200

            server.start()
            assert ask(readings)[2] == before[2]
            assert ask(f"{base}/ready")[0] == 200
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"INFLUXDB_TOKEN": ""}, "INFLUXDB_TOKEN: not set, and STORAGE_TYPE=influxdb needs it"),
        ({"INFLUXDB_TOKEN": "wrong"}, "INFLUXDB_TOKEN: InfluxDB at http://.* does not take this token"),
        ({"INFLUXDB_ORG": "nobody"}, "INFLUXDB_ORG .* has no organization 'nobody'"),
        ({"RETENTION_PERIOD": "30m"}, "RETENTION_PERIOD .*: 1800s is too short"),
        (
            {"INFLUXDB_URL": f"http://127.0.0.1:{free_port()}"},
            "InfluxDB at http://.* does not answer: connection refused",
        ),
    ],
    ids=["no-token", "wrong-token", "wrong-org", "retention", "unreachable"],
)
def test_what_is_wrong_is_said_at_once_in_one_line(
    tmp_path: Path, influx_config: InfluxConfig, changes: dict[str, str], message: str
) -> None:
    with pipeline(tmp_path / "state", **(settings_for(influx_config) | changes)) as run:
        run.until(f"CommandError: {message}")
        assert run.process.wait(30) == 1
        assert len(run.rest().splitlines()) == 1
