from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from broker.client import BrokerClient
from tests.broker.harness import publish_all, running_broker, take
from tests.broker.test_http import fetch


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
        assert samples["broker_fsync_seconds_count", ""] >= 1
        await client.close()
