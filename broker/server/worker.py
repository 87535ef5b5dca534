"""A thread that runs, in order, the jobs that may wait for the disk."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
Done = Callable[[Any, BaseException | None], None]


class Worker:
    """Runs jobs one after the other on a thread of its own and passes their results to the event loop.

    It is leaner than an executor: the commit path crosses threads twice per batch, and a batch may be a single message.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Done] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], Any], done: Done) -> None:
        """Run ``job`` on the thread, then ``done(result, error)`` on the loop."""
        self._jobs.put((job, done))

    async def call(self, job: Callable[[], T]) -> T:
        """Run ``job`` on the thread; returns its result or raises its error."""
        future: asyncio.Future[T] = self._loop.create_future()

        def done(result: T, error: BaseException | None) -> None:
            if future.done():
                return  # the caller gave up waiting
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.submit(job, done)
        return await future

    async def close(self, seconds: float) -> bool:
        """Finish the queued jobs, then end the thread. Returns False if a job is still stuck after ``seconds``."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join, seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            result, error = None, None
            try:
                result = job()
            except BaseException as caught:
                error = caught
            try:
                self._loop.call_soon_threadsafe(done, result, error)
            except RuntimeError:
                return  # the loop is closed: nobody waits for the result
            item = job = done = result = error = None  # type: ignore[assignment]  # keeps nothing alive while waiting
