"""The watch on a real broker: events are written once, whatever ends it, and one judges at a time."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DataError, OperationalError

from health.actions import resolve
from health.engine.engine import Engine
from health.models import Event, EventState, EventTransition, WatchState
from health.watch import watcher as watcher_module
from health.watch.errors import WatchError
from health.watch.watcher import WATCH_LEASE, Watcher
from readings.model import Gpu, PointBlock
from tests.broker.harness import running_broker
from tests.health.watch.wiring import batch, send, watch_config, watching
from tests.ingest.wiring import until

pytestmark = pytest.mark.django_db(transaction=True)

XID, UTIL = "DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_GPU_UTIL"
START = (time.time_ns() // 10**9 - 600) * 10**9


def gpu(number: int = 0) -> Gpu:
    return Gpu(uuid=f"GPU-{number}", hostname="node-1", gpu_id=number, model_name="H100", pod="p", namespace="n")


def codes(first: float, *values: float) -> list[bytes]:
    return [
        batch(first + 10 * number, [(gpu(), {XID: value, UTIL: 50.0})], start_ns=START)
        for number, value in enumerate(values)
    ]


async def test_what_the_engine_says_is_written_with_the_offset(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        await send(broker.port, codes(0, 0, 79, 79))
        await Watcher(watch_config(broker.port)).run(once=True)
        event = await Event.objects.aget()
        assert (event.rule, event.subject, event.state, event.entity) == ("xid_fatal", "79", "open", "GPU-0")
        assert (event.hostname, event.slot, event.model_name, event.pod) == ("node-1", 0, "H100", "p")
        assert event.summary.startswith("XID 79: ")
        assert not event.quiet
        state = await WatchState.objects.aget(pk=1)
        assert (state.offset, state.judged, state.holder) == (2, 6, "")
        assert broker.log.commits.get("watch") == 2


async def test_the_next_run_goes_on_and_opens_nothing_twice(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        for payload in [*codes(0, 0, 79), b'"no batch"', *codes(20, 79, 79, 48)]:
            await send(broker.port, [payload])
            await Watcher(watch_config(broker.port)).run(once=True)
        assert [event.subject async for event in Event.objects.order_by("opened")] == ["79", "48"]
        assert await EventTransition.objects.acount() == 2


async def test_another_one_waits_and_takes_over_at_once_when_the_first_ends(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        async with watching(watch_config(broker.port)) as first:
            await until(lambda: first.holds_lease)
            async with watching(watch_config(broker.port)) as second:
                await send(broker.port, codes(0, 0, 79))
                await until(lambda: first.committed == 1)
                assert not second.holds_lease
                first._stop.set()
                await until(lambda: second.holds_lease)
                await send(broker.port, codes(20, 48))
                await until(lambda: second.committed == 2)
        assert await Event.objects.acount() == 2


async def test_one_that_lost_the_lease_writes_nothing_and_judges_again_later(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker, watching(watch_config(broker.port)) as watcher:
        await send(broker.port, codes(0, 0))
        await until(lambda: watcher.committed == 0)
        await WatchState.objects.filter(pk=1).aupdate(holder="another", lease_until="2100-01-01T00:00:00Z")
        await send(broker.port, codes(10, 79))
        await until(lambda: not watcher.holds_lease)
        assert await Event.objects.acount() == 0
        await WatchState.objects.filter(pk=1).aupdate(holder="", lease_until=None)
        await until(lambda: watcher.committed == 1)
        assert await Event.objects.acount() == 1


async def test_what_a_person_resolved_begins_anew(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker, watching(watch_config(broker.port)) as watcher:
        await send(broker.port, codes(0, 0, 79))
        await until(lambda: watcher.committed == 1)
        event = await Event.objects.aget()
        await sync_to_async(resolve)(event, "ann")
        await until(lambda: not watcher.engine.book.events)
        await send(broker.port, codes(20, 0, 79))
        await until(lambda: watcher.committed == 3)
        assert [each.state async for each in Event.objects.order_by("opened")] == [EventState.CLOSED, EventState.OPEN]


async def test_a_new_log_is_judged_from_its_start_with_what_is_known(tmp_path: Path) -> None:
    async with running_broker(tmp_path / "old") as broker:
        await send(broker.port, codes(0, 0, 79))
        await Watcher(watch_config(broker.port)).run(once=True)
    async with running_broker(tmp_path / "new") as broker:
        await send(broker.port, codes(20, 79, 48))
        watcher = Watcher(watch_config(broker.port))
        await watcher.run(once=True)
        assert watcher.totals.log_restores == 1
    assert [event.subject async for event in Event.objects.order_by("opened")] == ["79", "48"]


async def test_what_the_database_refuses_for_good_ends_the_watch_with_one_line(tmp_path: Path) -> None:
    def refuse(steps: object) -> None:
        raise DataError("value too long\nfor this column")

    async with running_broker(tmp_path) as broker:
        await send(broker.port, codes(0, 0, 79))
        with pytest.raises(WatchError, match="the database refuses what was judged: value too long for this column"):
            await Watcher(watch_config(broker.port, post=refuse)).run(once=True)


async def test_a_database_that_goes_away_in_a_commit_is_waited_for(tmp_path: Path) -> None:
    tries = 0

    def shaky(steps: object) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OperationalError("the connection is lost")

    async with running_broker(tmp_path) as broker:
        await send(broker.port, codes(0, 0, 79))
        await Watcher(watch_config(broker.port, post=shaky)).run(once=True)
    assert await Event.objects.acount() == 1
    assert tries == 3


async def test_while_idle_the_clock_goes_on_from_the_last_message_without_what_was_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher_module, "IDLE_SECONDS", 0.05)
    async with running_broker(tmp_path) as broker:
        await send(broker.port, codes(0, 0))
        first = Watcher(watch_config(broker.port))
        await first.run(once=True)
        last = first.engine.now_ns
        await asyncio.sleep(1.5)  # nobody watches
        began = time.monotonic()
        async with watching(watch_config(broker.port)) as watcher:
            await until(lambda: watcher.engine.now_ns > last)
            assert watcher.engine.now_ns - last <= (time.monotonic() - began) * 1e9


async def test_a_fault_of_the_engine_is_counted_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    take = Engine.take

    def fail(self: Engine, block: PointBlock, **rest: Any) -> Any:
        if any(gpu.uuid == "GPU-7" for gpu in block.gpus):
            raise ZeroDivisionError("made up")
        return take(self, block, **rest)

    monkeypatch.setattr(Engine, "take", fail)
    async with running_broker(tmp_path) as broker:
        await send(broker.port, [*codes(0, 0), batch(5, [(gpu(7), {UTIL: 1.0})], start_ns=START), *codes(10, 79)])
        watcher = Watcher(watch_config(broker.port))
        await watcher.run(once=True)
    assert watcher.totals.unjudged == 1
    assert "1 points up to message" in caplog.text
    assert await Event.objects.acount() == 1


async def test_the_lease_is_renewed_while_judging_takes_longer_than_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher_module, "RENEW_SECONDS", 0.02)
    take, released, judging = Engine.take, threading.Event(), threading.Event()

    def slow(self: Engine, block: PointBlock, **rest: Any) -> Any:
        judging.set()
        assert released.wait(60)
        return take(self, block, **rest)

    monkeypatch.setattr(Engine, "take", slow)
    renewed = 0

    def renew(self: Watcher) -> bool:
        nonlocal renewed
        renewed += judging.is_set()
        return renew_once(self)

    renew_once = Watcher._renew
    monkeypatch.setattr(Watcher, "_renew", renew)
    async with running_broker(tmp_path) as broker:
        await send(broker.port, codes(0, 0, 79))
        async with watching(watch_config(broker.port)) as first:
            await until(judging.is_set)
            # As if judging had taken longer than the lease.
            await WatchState.objects.filter(pk=1).aupdate(lease_until="2020-01-01T00:00:00Z")
            before = renewed
            await until(lambda: renewed > before + 1)
            assert not await sync_to_async(WATCH_LEASE.take)("another")
            released.set()
            await until(lambda: first.committed == 1)
    assert await Event.objects.acount() == 1


async def test_a_watch_whose_lease_is_lost_while_it_judges_writes_nothing_and_the_other_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher_module, "RENEW_SECONDS", 0.02)
    monkeypatch.setattr(watcher_module, "LEASE_WAIT_SECONDS", 0.02)
    take, released, judging = Engine.take, threading.Event(), threading.Event()

    def slow(self: Engine, block: PointBlock, **rest: Any) -> Any:
        judging.set()
        assert released.wait(60)
        return take(self, block, **rest)

    monkeypatch.setattr(Engine, "take", slow)
    async with running_broker(tmp_path) as broker:
        await send(broker.port, codes(0, 0, 79))
        async with watching(watch_config(broker.port)) as first:
            await until(judging.is_set)
            await WatchState.objects.filter(pk=1).aupdate(holder="another", lease_until="2100-01-01T00:00:00Z")
            await until(lambda: not first.holds_lease)
            released.set()
            assert await Event.objects.acount() == 0
            await WatchState.objects.filter(pk=1).aupdate(holder="", lease_until=None)
            await until(lambda: first.committed == 1)
    assert await Event.objects.acount() == 1
