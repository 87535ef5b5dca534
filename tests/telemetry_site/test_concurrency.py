from __future__ import annotations

import asyncio

import pytest

from telemetry_site.concurrency import all_of, drain_deadline, first_of, pause


class Case:
    def __init__(self) -> None:
        self.cancelled = 0

    async def forever(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def nothing(self) -> None:
        pass

    async def failure(self) -> None:
        raise ValueError("bad")


async def test_the_first_that_returns_ends_the_others() -> None:
    case = Case()
    assert await first_of(case.forever(), case.nothing(), case.forever()) == 1
    assert case.cancelled == 2


async def test_a_failure_comes_out_as_it_is() -> None:
    case = Case()
    with pytest.raises(ValueError, match="bad"):
        await first_of(case.forever(), case.failure())
    with pytest.raises(ValueError, match="bad"):
        await all_of(case.nothing(), case.forever(), case.failure())
    assert case.cancelled == 2


async def test_all_of_waits_for_the_last() -> None:
    done = []

    async def slow() -> None:
        await asyncio.sleep(0)
        done.append(1)

    await all_of(Case().nothing(), slow())
    assert done == [1]


async def test_cancelling_ends_all() -> None:
    case = Case()
    task = asyncio.create_task(all_of(case.forever(), case.forever()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert case.cancelled == 2


async def test_a_pause_ends_when_the_stop_comes() -> None:
    stop = asyncio.Event()
    assert not await pause(stop, 0.001)
    stop.set()
    assert await pause(stop, 60)


@pytest.mark.parametrize(("connected", "seconds"), [(True, 0.07), (False, 0.02)])
async def test_the_time_to_drain_begins_with_the_stop_and_is_short_when_nobody_is_there(
    connected: bool, seconds: float
) -> None:
    stop = asyncio.Event()
    deadline = asyncio.create_task(drain_deadline(stop, 0.07, seconds_away=0.02, connected=lambda: connected))
    await asyncio.sleep(0.1)
    assert not deadline.done()
    stop.set()
    began = asyncio.get_running_loop().time()
    await deadline
    assert asyncio.get_running_loop().time() - began >= seconds * 0.9
