from __future__ import annotations

import json
import subprocess
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from broker.client.client import BrokerClient
from tests.broker.faults.tools import need
from tests.broker.harness import plain_client, publish_all, running_broker, take
from tests.broker.server.test_http import fetch


async def test_prometheus_can_read_it(tmp_path: Path) -> None:
    async with running_broker(tmp_path, http_token="sesame") as broker:
        await publish_all(broker.port, 10)
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        await client.subscribe('c"1')
        await take(client, 10)
        await client.ack(6)
        assert (await fetch(broker.http_port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 401
        request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesame\r\n\r\n"
        status, headers, body = await fetch(broker.http_port, request)
        assert status == 200
        assert headers["Content-Type"].startswith("text/plain; version=")
        samples = {
            (sample.name, sample.labels.get("subscriber", "")): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }
        assert samples["broker_next_offset", ""] == 10
        assert samples["broker_published_messages_total", ""] == 10
        assert samples["broker_delivered_messages_total", ""] == 10
        assert samples["broker_subscriber_lag", 'c"1'] == 3
        assert samples["broker_subscriber_connected", 'c"1'] == 1
        assert samples["broker_subscriber_missed_messages_total", 'c"1'] == 0
        assert samples["broker_fsync_seconds_count", ""] >= 1
        await client.close()


async def test_errors_are_counted_by_code(tmp_path: Path) -> None:
    async with running_broker(tmp_path, max_connections=1) as broker:
        async with plain_client(broker.port) as client:
            await client.ask(type="sing")
            await client.ask(type="sing")
            await client.ask(type="ack", offset=1)
            async with plain_client(broker.port) as surplus:
                await surplus.receive()
            assert broker.stats()["errors"] == {"unknown_type": 2, "not_subscribed": 1, "overloaded": 1}
        body = (await fetch(broker.http_port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"))[2].decode()
        assert 'broker_errors_total{code="unknown_type"} 2.0' in body


async def test_promtool_finds_nothing_to_say(tmp_path: Path) -> None:
    promtool = need("promtool", "prometheus")
    async with running_broker(tmp_path, segment_bytes=4096, retention_bytes=1) as broker:
        await publish_all(broker.port, 100)
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        await client.subscribe("c1")
        await take(client, 100)
        async with plain_client(broker.port) as plain:
            await plain.ask(type="sing")
        _, _, body = await fetch(broker.http_port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.close()
    checked = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, check=False)  # noqa: ASYNC221
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


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
        status, _, body = await fetch(broker.http_port, b"GET /stats HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status == 200
        assert json.loads(body).keys() == stats.keys()
        await client.close()
        await fresh.close()


async def test_an_empty_log_has_no_latest_offset(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        assert (broker.stats()["total_messages"], broker.stats()["latest_offset"]) == (0, -1)
