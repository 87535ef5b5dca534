from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from broker.server.worker import Worker


async def test_jobs_run_in_order_on_one_thread() -> None:
    worker = Worker("test")
    seen: list[tuple[int, str]] = []

    def job(number: int) -> None:
        seen.append((number, threading.current_thread().name))

    await asyncio.gather(*(worker.call(partial(job, number)) for number in range(50)))
    assert seen == [(number, "test") for number in range(50)]
    assert await worker.close(5.0)


async def test_what_a_job_raises_is_raised_to_whoever_asked() -> None:
    worker = Worker("test")
    with pytest.raises(ZeroDivisionError):
        await worker.call(lambda: 1 // 0)
    assert await worker.call(lambda: 7) == 7
    assert await worker.close(5.0)


async def test_giving_up_waiting_harms_nothing() -> None:
    worker = Worker("test")
    go = threading.Event()
    waiting = asyncio.create_task(worker.call(go.wait))
    await asyncio.sleep(0)
    waiting.cancel()
    assert not await worker.close(0.01)  # it says that a job is stuck
    go.set()
    assert await worker.close(5.0)
    await asyncio.sleep(0)


def test_a_job_that_outlives_the_loop_ends_the_thread_quietly() -> None:
    go = threading.Event()

    async def start() -> Worker:
        worker = Worker("test")
        worker.submit(go.wait, lambda result, error: None)
        return worker

    worker = asyncio.run(start())
    go.set()
    worker._thread.join(5)
    assert not worker._thread.is_alive()
