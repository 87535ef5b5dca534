"""Offers a page to the person at the terminal: Enter opens it in a browser, where there is one."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TextIO


def can_open_browser(
    environ: Mapping[str, str] | None = None, streams: tuple[TextIO | None, TextIO | None] | None = None
) -> bool:
    """Whether a person sits at this machine's own screen: a terminal on both ``streams`` (in, out), a desktop, no SSH."""
    environ = os.environ if environ is None else environ
    streams = (sys.stdin, sys.stdout) if streams is None else streams
    if environ.get("SSH_CONNECTION") or environ.get("SSH_TTY"):
        return False
    has_desktop = sys.platform == "darwin" or environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")
    return bool(has_desktop) and all(stream is not None and stream.isatty() for stream in streams)


@contextmanager
def browser_on_enter(url: str) -> Iterator[None]:
    """Inside the block the first Enter at standard input opens ``url``. Needs a running loop; nothing waits for the key."""
    loop = asyncio.get_running_loop()
    terminal = sys.stdin.fileno()

    def on_input() -> None:
        loop.remove_reader(terminal)
        with suppress(OSError):  # the terminal is gone
            # A background job that reads from its terminal would be stopped.
            if os.tcgetpgrp(terminal) == os.getpgrp() and os.read(terminal, 1024):
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()  # it may take long

    with suppress(OSError, NotImplementedError):  # standard input cannot be watched
        loop.add_reader(terminal, on_input)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
