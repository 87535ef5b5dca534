"""Asks for HEARTBEAT_URL while events are judged. Whoever gets no heartbeat any more knows that nobody watches."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable

import urllib3
from django.conf import settings
from urllib3.exceptions import HTTPError

from health.notify.threads import SENDING, Turns, in_thread, quieten_libraries, repeat

logger = logging.getLogger(__name__)

_TIMEOUT = 10.0
# While nothing is judged it is looked again so soon.
_AGAIN = 1.0


class Heart:
    """Beats once in an interval, only while ``is_judging`` says so."""

    def __init__(self, url: str, interval: float, is_judging: Callable[[], bool]) -> None:
        self._url, self._interval, self._is_judging = url, interval, is_judging
        timeout = urllib3.Timeout(connect=_TIMEOUT, read=_TIMEOUT)
        self._pool = urllib3.PoolManager(ssl_context=ssl.create_default_context(), timeout=timeout, num_pools=2)
        self._trouble = ""

    def step(self) -> float:
        """Beat if it is time to. Returns the seconds to the next step."""
        if not self._is_judging():
            return min(_AGAIN, self._interval)
        trouble = self.beat()
        if trouble and not self._trouble:
            logger.warning("HEARTBEAT_URL is not reached: %s; trying again", trouble)
        if self._trouble and not trouble:
            logger.info("HEARTBEAT_URL is reached again")
        self._trouble = trouble
        # A beat that is lost is noticed: the next try is soon.
        return min(5.0, self._interval) if trouble else self._interval

    def beat(self) -> str:
        """Ask once; returns what went wrong, without the URL, or nothing."""
        try:
            answer = self._pool.request("GET", self._url, retries=urllib3.Retry(0, redirect=3), preload_content=False)
            answer.release_conn()
            answer.close()
        except HTTPError as error:
            return type(getattr(error, "reason", None) or error).__name__
        return "" if 200 <= answer.status < 300 else f"it answered {answer.status}"


async def run(stop: asyncio.Event, is_judging: Callable[[], bool]) -> None:
    """Beat until ``stop``; nothing without HEARTBEAT_URL."""
    if not settings.HEARTBEAT_URL:
        await stop.wait()
        return
    quieten_libraries()
    heart, turns = Heart(settings.HEARTBEAT_URL, settings.HEARTBEAT_INTERVAL, is_judging), Turns()
    await in_thread(stop, f"{SENDING}heartbeat", turns, lambda: repeat(turns, "the heartbeat", heart.step))
