"""Run coroutines side by side. The first failure cancels the others and is raised unchanged, not in an exception group."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


async def first_of(*coroutines: Coroutine[Any, Any, Any]) -> int:
    """Run all until one returns or fails; cancel the others. Returns the index of one that returned, or raises."""
    return await _run(coroutines, asyncio.FIRST_COMPLETED)


async def all_of(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Run all until each has returned or one fails; then cancel the others and raise its exception."""
    await _run(coroutines, asyncio.FIRST_EXCEPTION)


async def _run(coroutines: tuple[Coroutine[Any, Any, Any], ...], until: str) -> int:
    tasks = [asyncio.create_task(each, name=each.__name__) for each in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=until)
        for task in tasks:
            if task in done:
                task.result()
        return next(number for number, task in enumerate(tasks) if task in done)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def pause(stop: asyncio.Event, seconds: float) -> bool:
    """Sleep until the time is over or ``stop`` is set; returns whether it is set."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False
    return True


async def drain_deadline(
    stop: asyncio.Event, seconds: float, *, seconds_away: float = 0.0, connected: Callable[[], bool] = lambda: True
) -> None:
    """Wait for ``stop``, then for the time to drain: ``seconds``, or ``seconds_away`` when there is no connection by then."""
    await stop.wait()
    await asyncio.sleep(seconds_away)
    if connected():
        await asyncio.sleep(seconds - seconds_away)
