"""Work beside ``watch``, in threads of its own: it is halted with the service, and a library that hangs holds nothing up."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from django.db import DatabaseError, InterfaceError, close_old_connections, connections

logger = logging.getLogger(__name__)

# Threads whose name begins so send something. What libraries log there may have URLs with secrets in it, and is dropped.
SENDING = "send-"
STOPPING_TAKES = 8.0
_AFTER_FAILURE = 10.0


class Turns:
    """When a thread is to work, and when to end."""

    def __init__(self) -> None:
        self.halt = threading.Event()
        self.woken = threading.Event()

    def wait(self, seconds: float) -> None:
        """Until the time is over, or somebody wakes it."""
        self.woken.wait(seconds)
        self.woken.clear()

    def end(self) -> None:
        """Let it come to an end."""
        self.halt.set()
        self.woken.set()


async def in_thread(stop: asyncio.Event, name: str, turns: Turns, work: Callable[[], None]) -> None:
    """Run ``work`` in a thread until ``stop``, or until this is cancelled; then let it end. Returns soon after, whatever hangs."""
    finished, loop = asyncio.Event(), asyncio.get_running_loop()

    def run() -> None:
        try:
            work()
        except Exception:
            logger.exception("%s ended", name)
        finally:
            connections.close_all()
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(finished.set)

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        await stop.wait()
    finally:
        turns.end()
        ending = asyncio.create_task(_within(finished, STOPPING_TAKES))
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await ending  # what is on its way is noted, so that it is not sent again
            raise


async def _within(finished: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(finished.wait(), seconds)


def repeat(turns: Turns, what: str, step: Callable[[], float]) -> None:
    """Call ``step`` until the end; it returns the seconds to its next turn. While the database is away it is tried again."""
    is_away = False
    while not turns.halt.is_set():
        wait = 1.0
        try:
            close_old_connections()
            wait = step()
            if is_away:
                logger.info("%s: the database is back", what)
            is_away = False
        except (DatabaseError, InterfaceError) as error:
            if not is_away:
                logger.warning("%s: the database is away: %s", what, " ".join(str(error).split()))
            is_away = True
        except Exception:
            logger.exception("%s failed", what)
            wait = _AFTER_FAILURE
        finally:
            close_old_connections()
        turns.wait(wait)


class _NotWhileSending(logging.Filter):
    """Drops what a library logs in a thread that sends."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.threadName or "").startswith(SENDING)


_not_while_sending = _NotWhileSending()


def quieten_libraries() -> None:
    """Drop what HTTP libraries log in threads that send."""
    for name in ("urllib3.connectionpool", "urllib3.util.retry", "requests", "charset_normalizer"):
        logging.getLogger(name).addFilter(_not_while_sending)
