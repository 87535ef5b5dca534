"""The live view: a frame every few seconds on the terminal's other screen, until q or Ctrl-C."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleDimensions
from rich.live import Live

from dashboard.top.feed import FeedError
from dashboard.top.frame import frame
from dashboard.top.summary import Summary

_LOOK_SECONDS = 0.2  # how soon a key or another size of the terminal shows


def show_live(read: Callable[[], Summary], interval: float, console: Console) -> None:
    """Show what ``read`` gives every ``interval`` seconds. Raises FeedError if the first call does; later ones are shown."""
    reader = _Refresher(read, interval)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the terminal is put right first
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        shown: tuple[object, ConsoleDimensions] | None = None
        while not pressed(_LOOK_SECONDS):
            current = reader.summary, reader.trouble
            if shown != (current, console.size):
                shown = current, console.size
                footer = reader.trouble or f"every {interval:g} s    q: quit"
                width, height = console.size
                live.update(frame(reader.summary, width=width, height=height, footer=footer), refresh=True)


class _Refresher:
    """Reads in a thread of its own, so that a slow service does not hold up the keys."""

    def __init__(self, read: Callable[[], Summary], interval: float) -> None:
        self._read = read
        self._interval = interval
        self.summary = read()
        self.trouble = ""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(self._interval)
            try:
                self.summary = self._read()
                self.trouble = ""
            except FeedError as error:
                self.trouble = f"not refreshed since {self.summary.time[11:19]} UTC: {error}"


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Inside the block the terminal gives each key at once. The function waits so many seconds, and says whether to end."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def pressed(seconds: float) -> bool:
        if not select.select([terminal], [], [], seconds)[0]:
            return False
        keys = os.read(terminal, 64)
        return not keys or b"q" in keys.lower()  # nothing: the terminal is closed

    tty.setcbreak(terminal)
    try:
        yield pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
