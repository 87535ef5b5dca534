"""The services started by hand, one after another, with an InfluxDB named in the environment and nothing else prepared."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from ingest.simulator.capture import CaptureShape, write_capture
from stores.influxdb.client import InfluxConfig
from tests.influxd import Influxd
from tests.ingest.processes import Fleet, Service, wait_until
from tests.ports import free_port


@pytest.mark.acceptance
@pytest.mark.timeout(180)
def test_a_token_for_influxdb_is_all_that_broker_collector_api_and_streamer_need(
    tmp_path: Path, influxd: Influxd, influx_config: InfluxConfig
) -> None:
    write_capture(tmp_path / "capture.csv", CaptureShape())
    port = free_port()
    fleet = Fleet(
        tmp_path / "state",
        INFLUXDB_URL=influx_config.url,
        INFLUXDB_TOKEN=influx_config.token,
        INFLUXDB_ORG=influx_config.org,
        INFLUXDB_BUCKET=influx_config.bucket,
        RETENTION_PERIOD="24h0m0s",
        CSV_PATH=tmp_path / "capture.csv",
        PORT=port,
        TIMESTAMPS="now",
    )
    web = Service("web", fleet, "serve")
    try:
        for service in (fleet.broker, fleet.collector, web, fleet.streamer):
            service.start()
        named = f"influxdb, bucket {influx_config.bucket} at {influx_config.url}"
        fleet.collector.wait_for(f"storing to {named}")
        web.wait_for(f"answering from {named}")
        assert fleet.streamer.wait() == 0, fleet.streamer.log

        def stored() -> int:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/stats", timeout=30) as answer:
                return int(json.load(answer)["readings"]["stored"])

        wait_until(lambda: stored() == 9600, "all readings")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/telemetry?page_size=5", timeout=30) as answer:
            assert len(json.load(answer)["data"]) == 5
        assert influxd.query(influx_config.bucket, 'SELECT count("DCGM_FI_DEV_GPU_UTIL") FROM "gpu"')[0][1] > 0
    finally:
        web.kill()
        fleet.kill_all()
