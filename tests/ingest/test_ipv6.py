"""The pipeline over IPv6: addresses in brackets and without."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from broker.client.address import BrokerAddress
from ingest.simulator.capture import CaptureShape, write_capture
from tests.ingest.processes import Fleet


def test_an_address_prints_with_brackets() -> None:
    assert str(BrokerAddress(host="::1", port=9000)) == "[::1]:9000"
    assert str(BrokerAddress(host="broker", port=9000)) == "broker:9000"


@pytest.mark.acceptance
@pytest.mark.parametrize("host", ["[::1]", "::1"])
def test_the_broker_may_be_at_an_ipv6_address(tmp_path: Path, host: str) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    write_capture(tmp_path / "capture.csv", CaptureShape())
    fleet = Fleet(tmp_path / "state", MQ_HOST=host, CSV_PATH=tmp_path / "capture.csv")
    fleet.environ["TCP_ADDR"] = f"[::1]:{fleet.port}"
    try:
        fleet.broker.start()
        fleet.streamer.start()
        assert fleet.streamer.wait() == 0, fleet.streamer.log
        assert "0 sent" not in fleet.streamer.log
    finally:
        fleet.kill_all()
