from __future__ import annotations

from pathlib import Path

import pytest

from broker.client.client import BrokerClient
from broker.log.log import LogRead
from tests.broker.harness import offsets, plain_client, publish_all, running_broker, take


async def test_a_subscriber_is_dropped_when_the_log_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_broker(tmp_path, buffer_messages=0) as broker:
        await publish_all(broker.port, 3)

        def unreadable(offset: int, most: int) -> LogRead:
            raise OSError(5, "Input/output error")

        def stuck(offset: int, most: int) -> LogRead:
            return LogRead(b"", offset, None)

        for read in (unreadable, stuck):
            with monkeypatch.context() as patch:
                patch.setattr(broker.log, "read", read)
                async with plain_client(broker.port) as client:
                    assert (await client.ask(type="subscribe", subscriber_id="c1"))["success"] is True
                    assert await client.is_closed()
        again = await BrokerClient.connect("127.0.0.1", broker.port)
        await again.subscribe("c1")
        assert offsets(await take(again, 3)) == [0, 1, 2]
        await again.close()
