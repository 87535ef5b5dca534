from __future__ import annotations

import logging
from pathlib import Path

import pytest

from broker.client.address import BrokerAddress
from broker.errors import BrokerUnavailable, ConnectionLost, DiskFull
from telemetry_site.outage import Outage, one_line
from tests.broker.harness import running_broker


def test_each_change_of_state_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage("the broker")
    with caplog.at_level(logging.DEBUG):
        outage.end()
        for _ in range(3):
            outage.begin(ConnectionError("refused\nby the host"))
        assert outage.trouble == ["the broker: refused by the host, for 0s"]
        outage.begin(TimeoutError())
        assert outage.trouble == ["the broker: TimeoutError, for 0s"]
        outage.end()
        outage.end()
    assert outage.trouble == []
    assert [record.getMessage() for record in caplog.records] == [
        "the broker: refused by the host: waiting until it is back",
        "the broker: TimeoutError: waiting until it is back",
        "the broker is back after 0s",
    ]


def test_an_error_without_text_is_shown_by_its_kind() -> None:
    assert one_line(TimeoutError()) == "TimeoutError"
    assert one_line(ValueError(" a\n b ")) == "a b"


def test_a_broken_connection_and_one_that_cannot_be_made_are_one_state(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage("the broker")
    with caplog.at_level(logging.DEBUG):
        outage.begin(ConnectionLost("it closed the connection"))
        outage.begin(BrokerUnavailable("nothing listens there"))
        outage.begin(DiskFull("no space"))
    assert [record.getMessage() for record in caplog.records] == [
        "the broker: it closed the connection: waiting until it is back",
        "the broker: no space: waiting until it is back",
    ]


def test_its_text_names_it_and_no_secret() -> None:
    address = BrokerAddress(host="mq", port=9000, token="sesame")
    assert (str(address), address.partner) == ("mq:9000", "the broker at mq:9000")
    assert "sesame" not in repr(address)


async def test_it_connects_with_its_token(tmp_path: Path) -> None:
    async with running_broker(tmp_path, token="sesame") as broker:
        client = await BrokerAddress(host="127.0.0.1", port=broker.port, token="sesame").connect("me")
        stats = await client.stats()
        await client.close()
    assert stats["total_messages"] == 0
