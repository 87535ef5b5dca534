from __future__ import annotations

import json
from pathlib import Path

from broker.client.client import BrokerClient
from tests.broker.harness import publish_all, running_broker, take
from tests.broker.server.test_http import fetch


async def test_stats_tell_who_reads_what(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        await publish_all(broker.port, 10)
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        await client.subscribe("c1")
        await take(client, 10)
        await client.ack(3)
        fresh = await BrokerClient.connect("127.0.0.1", broker.port)
        await fresh.subscribe("fresh", -1)
        broker.log.commits.set("gone", 7)
        stats = await client.stats()
        assert (stats["total_messages"], stats["oldest_offset"], stats["latest_offset"]) == (10, 0, 9)
        assert (stats["subscriber_count"], stats["published"], stats["delivered"]) == (2, 10, 10)
        assert stats["subscribers"] == [
            {
                "id": "c1",
                "current_offset": 9,
                "committed_offset": 3,
                "lag": 6,
                "missed": 0,
                "connected": True,
                "paused": False,
            },
            {
                "id": "fresh",
                "current_offset": 9,
                "committed_offset": None,
                "lag": 0,
                "missed": 0,
                "connected": True,
                "paused": False,
            },
            {
                "id": "gone",
                "current_offset": None,
                "committed_offset": 7,
                "lag": 2,
                "missed": 0,
                "connected": False,
                "paused": False,
            },
        ]
        status, _, body = await fetch(broker.http_port, b"GET /stats HTTP/1.1\r\n\r\n")
        assert status == 200
        assert json.loads(body).keys() == stats.keys()
        await client.close()
        await fresh.close()


async def test_an_empty_log_has_no_latest_offset(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        assert (broker.stats()["total_messages"], broker.stats()["latest_offset"]) == (0, -1)
