"""Row 19 of the fault matrix, with the SQLite store: the collector is killed around its write and its commit.

On InfluxDB, and rows 20 (a store that is away or says no) and 21 (the streamer's spool): tests/ingest.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.broker import payloads
from broker.client.client import BrokerClient, fetch_stats
from stores.sqlite import SqliteStore
from tests.broker.faults.tools import need
from tests.broker.process import ROOT, broker_process

BATCHES, READINGS = 16, 20


@pytest.mark.parametrize(
    "inject",
    [
        "fdatasync:signal=SIGKILL:when=3",  # in the middle of a write
        "sendto:signal=SIGKILL:when=3",  # written, not committed
        "sendto:signal=SIGKILL:when=4",  # committed
    ],
)
async def test_row_19_a_collector_killed_around_its_commit_stores_everything_once(tmp_path: Path, inject: str) -> None:
    strace = [need("strace"), "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,sendto", "-e", f"inject={inject}"]
    environ = {**os.environ, "STATE_DIR": str(tmp_path), "RETENTION_PERIOD": "0", "FLUSH_INTERVAL": "50ms"}
    manage = [sys.executable, "manage.py"]
    subprocess.run([*manage, "migrate", "--verbosity", "0"], cwd=ROOT, env=environ, check=True)  # noqa: ASYNC221
    with broker_process(tmp_path) as broker:
        port, _ = await asyncio.to_thread(broker.wait_listening)
        environ["MQ_PORT"] = str(port)
        client = await BrokerClient.connect("127.0.0.1", port)
        batches = payloads(READINGS, 8000)
        for payload in batches[: BATCHES // 2]:
            await client.publish(payload)
        killed = await asyncio.create_subprocess_exec(*strace, *manage, "collect", cwd=ROOT, env=environ)
        for payload in batches[BATCHES // 2 : BATCHES]:
            await client.publish(payload)
            await asyncio.sleep(0.1)  # so that there is more than one write
        assert await asyncio.wait_for(killed.wait(), 60) == -9
        again = await asyncio.create_subprocess_exec(*manage, "collect", cwd=ROOT, env=environ)
        try:
            deadline = time.monotonic() + 60
            while True:
                rows = (await asyncio.to_thread(fetch_stats, "127.0.0.1", port))["subscribers"]
                if any(row["connected"] and row["committed_offset"] == BATCHES - 1 for row in rows):
                    break
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
        finally:
            again.terminate()
            assert await again.wait() == 0
        await client.close()
    store = SqliteStore(tmp_path / "readings.sqlite3")
    assert store.stats().readings == BATCHES * READINGS
    store.close()
