from __future__ import annotations

import asyncio
import os
import pty
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from telemetry_site.desktop import browser_on_enter, can_open_browser

URL = "http://127.0.0.1:8080/"


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    """A terminal: the person's end, and the program's."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r") as stream:
        yield ours, stream
    os.close(ours)


def test_only_a_person_at_a_desktop_is_offered_a_browser(terminal: tuple[int, TextIO]) -> None:
    tty = terminal[1]
    desktop = {"DISPLAY": ":0"}
    with open(os.devnull, encoding="utf-8") as nothing:
        assert can_open_browser(desktop, (tty, tty))
        assert can_open_browser({"WAYLAND_DISPLAY": "wayland-0"}, (tty, tty))
        assert can_open_browser({}, (tty, tty)) is (sys.platform == "darwin")
        assert not can_open_browser({**desktop, "SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, (tty, tty))
        assert not can_open_browser(desktop, (nothing, tty))
        assert not can_open_browser(desktop, (tty, nothing))
        assert not can_open_browser(desktop, (None, tty))


SCRIPT = """
import asyncio, sys
from telemetry_site.desktop import browser_on_enter
from telemetry_site.service import stop_signals

async def run():
    stop = asyncio.Event()
    with stop_signals(stop), browser_on_enter(sys.argv[1]):
        print("ready", flush=True)
        await stop.wait()
    print("stopped", flush=True)

asyncio.run(run())
"""


def read_until(terminal: int, text: str) -> None:
    """Read what a program writes until ``text`` is there."""
    found = ""
    while text not in found:
        found += os.read(terminal, 1024).decode()


def test_enter_opens_the_page_once_and_ctrl_c_still_stops(tmp_path: Path) -> None:
    """In a terminal of its own, as a person uses it: the browser is a script that notes its argument."""
    opened = tmp_path / "opened"
    os.mkfifo(opened)
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(Path(__file__).resolve().parents[2])
        environ = {**os.environ, "BROWSER": f"{browser} %s", "PYTHONPATH": "."}
        os.execve(sys.executable, [sys.executable, "-c", SCRIPT, URL], environ)
    try:
        read_until(terminal, "ready")
        os.write(terminal, b"\n")
        assert opened.read_text().strip() == URL  # waits for the browser
        opened.unlink()
        os.write(terminal, b"\n")  # opens nothing more
        os.write(terminal, b"\x03")
        read_until(terminal, "stopped")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not opened.exists()
    finally:
        os.close(terminal)


async def test_an_input_that_cannot_be_watched_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file cannot be watched by epoll."""
    (tmp_path / "input").write_text("\n")
    with (tmp_path / "input").open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        with browser_on_enter(URL):
            assert not asyncio.get_running_loop().remove_reader(stream.fileno())
