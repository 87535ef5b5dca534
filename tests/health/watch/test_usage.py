"""The watch counts usage: each hour is kept once, whatever ends the watch or fails meanwhile."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError

from health.models import UsagePeriod, WatchState
from health.usage.packing import HOUR_NS, Figure
from health.usage.report import UsageQuestion, UsageReport, usage_report
from health.watch import watcher as watcher_module
from health.watch.watcher import Watcher
from readings.model import Gpu
from tests.broker.harness import running_broker
from tests.health.watch.wiring import batch, send, watch_config, watching
from tests.ingest.wiring import until

pytestmark = pytest.mark.django_db(transaction=True)

UTIL = "DCGM_FI_DEV_GPU_UTIL"
START = (time.time_ns() // HOUR_NS - 6) * HOUR_NS
STEP_S = 60


def messages(first_minute: int, minutes: int) -> list[bytes]:
    """A GPU that a pod holds and does not use, a sample a minute."""
    gpu = Gpu(uuid="GPU-0", hostname="node-1", gpu_id=0, model_name="H100", pod="p", namespace="n")
    return [
        batch(STEP_S * minute, [(gpu, {UTIL: 0.0})], start_ns=START, live=False)
        for minute in range(first_minute, first_minute + minutes)
    ]


@sync_to_async
def report() -> UsageReport:
    return usage_report(UsageQuestion(START, START + 6 * HOUR_NS, "pod"))


async def test_hours_are_kept_and_counted_once_over_restarts(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        for first in range(0, 240, 48):
            await send(broker.port, messages(first, 48))
            await Watcher(watch_config(broker.port)).run(once=True)
    assert await UsagePeriod.objects.acount() == 3
    [row] = (await report()).rows
    assert row.group == ("n", "p")
    assert row.held[Figure.KNOWN] == row.held[Figure.IDLE] == 239 * STEP_S * 10**9


async def test_a_write_that_fails_loses_no_hour_and_keeps_none_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = 3

    class Failing:
        """The state's table, which is away at first when hours were handed over."""

        def __getattr__(self, name: str) -> Any:
            nonlocal failures
            if name == "filter" and UsagePeriod.objects.exists() and failures:
                failures -= 1
                raise OperationalError("the database is away")
            return getattr(WatchState.objects, name)

    class State:
        objects = Failing()

    monkeypatch.setattr(watcher_module, "WatchState", State)
    async with running_broker(tmp_path) as broker, watching(watch_config(broker.port)) as watcher:
        await send(broker.port, messages(0, 200))
        await until(lambda: watcher.committed == 199)
    assert failures == 0
    [row] = (await report()).rows
    assert row.held[Figure.KNOWN] == 199 * STEP_S * 10**9


async def test_a_state_that_cannot_be_read_costs_the_open_hours_alone(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        await send(broker.port, messages(0, 150))
        await Watcher(watch_config(broker.port)).run(once=True)
        await WatchState.objects.aupdate(usage=b"nonsense")
        await send(broker.port, messages(150, 30))
        await Watcher(watch_config(broker.port)).run(once=True)
    row = {row.group: row for row in (await report()).rows}["n", "p"]
    hours = await UsagePeriod.objects.acount()
    assert row.held[Figure.KNOWN] == (hours * 60 + 29) * STEP_S * 10**9
