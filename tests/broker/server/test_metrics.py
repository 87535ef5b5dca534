from __future__ import annotations

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
        assert (await fetch(broker.http_port, b"GET /metrics HTTP/1.1\r\n\r\n"))[0] == 401
        request = b"GET /metrics HTTP/1.1\r\nAuthorization: Bearer sesame\r\n\r\n"
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
        body = (await fetch(broker.http_port, b"GET /metrics HTTP/1.1\r\n\r\n"))[2].decode()
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
        _, _, body = await fetch(broker.http_port, b"GET /metrics HTTP/1.1\r\n\r\n")
        await client.close()
    checked = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, check=False)  # noqa: ASYNC221
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
