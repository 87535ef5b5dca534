"""How every long-running service stops: the first SIGTERM, SIGINT or SIGHUP (a terminal that closes) starts a clean stop, the second
kills the process.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class CannotListen(Exception):
    """An address cannot be listened on. The text is one line."""


@contextmanager
def stop_signals(stop: asyncio.Event) -> Iterator[None]:
    """Sets ``stop`` on the first signal and restores the default action for the second. Needs a running loop.

    It uses the loop's own signal handling: setting a threading.Event from a Python-level handler can deadlock while the
    main thread enters ``wait``. Off the main thread (tests, the collector inside the web process) it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        logger.info("%s: stopping (a second one ends the process at once)", number.name)
        stop.set()
        for each in previous:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    if previous[signal.SIGHUP] is signal.SIG_IGN:  # started with nohup
        del previous[signal.SIGHUP]
    for number in previous:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number, handler in previous.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


def collect_garbage_rarely() -> None:
    """Let the garbage collector look for circles less often: services make many objects that live for a flush, and hardly any circle.

    Measured: looking takes a fifth of the CPU of a collector at 10,000 GPUs, a tenth of that of a streamer of captures, and two fifths of a
    web worker's for 24 hours of 1,250 hosts, whose answer from InfluxDB is 30,000 rows.
    """
    gc.set_threshold(100_000, 50, 100)
