from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from broker.server import health as health_module
from tests.broker.harness import running_broker
from tests.broker.server.test_http import fetch

GET_HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_broker_that_works_is_healthy(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        status, _, body = await fetch(broker.http_port, GET_HEALTH)
        assert (status, json.loads(body)) == (200, {"status": "healthy", "reasons": []})


async def test_too_little_free_space_is_unhealthy(tmp_path: Path) -> None:
    async with running_broker(tmp_path, free_space_reserve=1 << 60) as broker:
        status, _, body = await fetch(broker.http_port, GET_HEALTH)
        assert status == 503
        answer = json.loads(body)
        assert answer["status"] == "unhealthy"
        assert "reserve" in answer["reasons"][0]


async def test_a_broker_that_takes_nothing_is_alive_all_the_same(tmp_path: Path) -> None:
    async with running_broker(tmp_path, free_space_reserve=1 << 60, http_token="secret") as broker:
        status, _, body = await fetch(broker.http_port, b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (status, json.loads(body)) == (200, {"status": "alive"})


async def test_a_probe_is_kept_for_a_while_unless_something_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_broker(tmp_path) as broker:
        probes: list[int] = []

        def probe() -> list[str]:
            probes.append(1)
            return []

        monkeypatch.setattr(broker.log, "probe", probe)
        for _ in range(3):
            assert (await broker.health.check()).status == "healthy"
        assert len(probes) == 1
        broker.health.forget_probe()
        await broker.health.check()
        assert len(probes) == 2


async def test_a_disk_that_does_not_answer_is_unhealthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "PROBE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(health_module, "STUCK_WRITE_S", 0.0)
    async with running_broker(tmp_path) as broker:
        gate = threading.Event()
        broker.writer.submit(gate.wait, lambda result, error: None)
        for _ in range(2):
            report = await broker.health.check()
            assert report.status == "unhealthy"
            assert "not answered" in report.reasons[0]
        gate.set()


async def test_a_failing_probe_and_a_late_loop_are_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_broker(tmp_path, tick_s=100.0) as broker:

        def probe() -> list[str]:
            raise RuntimeError("no")

        monkeypatch.setattr(broker.log, "probe", probe)
        broker.loop_lag = 0.75
        report = await broker.health.check()
        assert report.reasons == ("the broker is 750 ms late", "the disk probe failed: no")


async def test_damage_that_was_found_is_degraded(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        broker.log._segments[0].note_gap(3, 5)
        report = await broker.health.check()
        assert report.status == "degraded"
        assert "3 to 5" in report.reasons[0]


async def test_a_stopping_or_failed_broker_is_unhealthy(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        broker.fail(RuntimeError("fsync"))
        assert (await broker.health.check()).reasons == ("the log failed: fsync",)
        await broker.stop()
        assert (await broker.health.check()).reasons == ("the broker is stopping",)
