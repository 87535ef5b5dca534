from __future__ import annotations

from pathlib import Path

from ingest.reconnect import BrokerAddress
from tests.broker.harness import running_broker


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
