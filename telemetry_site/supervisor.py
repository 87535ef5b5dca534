"""Runs the services of the pipeline as child processes: one terminal, one Ctrl-C, stopped in reverse order.

Procfile runners stop everything as soon as any process ends. Here a finished capture leaves the API running, a service starts
when the ones it needs are ready, and children end with a supervisor that is killed.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TextIO

from readings.text import printable

logger = logging.getLogger(__name__)

STOP_SECONDS = 15.0  # a service drains within 10 s; after this the supervisor kills it and the run counts as failed
_COLOURS = (36, 33, 32, 35, 34)
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here: after a fork only plain calls are safe


@dataclass(frozen=True, slots=True)
class Service:
    """One child: its name, its command line and, if it serves HTTP, the URL that answers 200 once it is ready."""

    name: str
    argv: Sequence[str]
    ready_url: str = ""
    may_end: bool = False  # its clean end (a finished capture) does not stop the others


class ServiceFailed(Exception):
    """A service ended too early or did not become ready. The text is one line."""


@dataclass(slots=True)
class Supervisor:
    """Starts services one by one, prefixes their output with their names and stops them in reverse order."""

    environ: Mapping[str, str]
    output: TextIO = field(default_factory=lambda: sys.stdout)
    _running: list[_Child] = field(default_factory=list)

    async def start(self, service: Service, ready_seconds: float = 60.0) -> None:
        """Starts a service and waits until it is ready. Raises ServiceFailed when it ends first or takes too long."""
        process = await asyncio.create_subprocess_exec(
            *service.argv,
            env=dict(self.environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # Ctrl-C signals the terminal's whole process group. In a session of its own, a child waits for the supervisor.
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            limit=1 << 20,
        )
        child = _Child(service, process, asyncio.create_task(self._echo(service, process, len(self._running))))
        self._running.append(child)
        if not service.ready_url:
            return
        try:
            await asyncio.wait_for(self._wait_until_ready(child), ready_seconds)
        except TimeoutError:
            raise ServiceFailed(f"{service.name} was not ready after {ready_seconds:g} s") from None

    async def wait(self, stop: asyncio.Event) -> None:
        """Returns when ``stop`` is set. Raises ServiceFailed when a service ends that should keep running."""
        ends = {asyncio.create_task(child.process.wait()): child for child in self._running}
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stopping.done():
                done, _ = await asyncio.wait([stopping, *ends], return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if task is stopping:
                        continue
                    child = ends.pop(task)
                    if not (child.service.may_end and child.process.returncode == 0):
                        raise ServiceFailed(f"{child.service.name} ended with {_ending(child.process.returncode)}")
                    await child.echo
                    self.say(f"{child.service.name} is done; the other services go on until Ctrl-C")
        finally:
            for waiting in (stopping, *ends):
                waiting.cancel()

    async def stop(self) -> bool:
        """Stops all services, the last one first, each with time to drain. Returns whether all ended cleanly."""
        clean = True
        for child in reversed(self._running):
            process = child.process
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                try:
                    await asyncio.wait_for(process.wait(), STOP_SECONDS)
                except TimeoutError:
                    self.say(f"{child.service.name} did not stop within {STOP_SECONDS:g} s and is killed")
                    process.kill()
                    await process.wait()
            await child.echo
            if process.returncode != 0:
                clean = False
                self.say(f"{child.service.name} ended with {_ending(process.returncode)}")
        self._running.clear()
        return clean

    def say(self, line: str) -> None:
        """Prints a line without a prefix."""
        self._write(line)

    async def _wait_until_ready(self, child: _Child) -> None:
        while not await asyncio.to_thread(_answers, child.service.ready_url):
            try:
                await asyncio.wait_for(child.process.wait(), 0.1)
            except TimeoutError:
                continue
            await child.echo
            raise ServiceFailed(f"{child.service.name} ended with {_ending(child.process.returncode)}")

    async def _echo(self, service: Service, process: asyncio.subprocess.Process, number: int) -> None:
        assert process.stdout is not None  # noqa: S101 - asked for above
        prefix = f"{service.name:<9} | "
        if self.output.isatty() and "NO_COLOR" not in self.environ:
            prefix = f"\x1b[{_COLOURS[number % len(_COLOURS)]}m{prefix}\x1b[0m"
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # a line over the limit; the rest of it arrives as further lines
                continue
            if not line:
                return
            self._write(prefix + printable(line.decode("utf-8", "replace").rstrip()))

    def _write(self, line: str) -> None:
        with suppress(OSError):  # the terminal is closed: the services still have to be stopped
            self.output.write(f"{line}\n")
            self.output.flush()


@dataclass(frozen=True, slots=True)
class _Child:
    service: Service
    process: asyncio.subprocess.Process
    echo: asyncio.Task[None]


# A service on this machine need not prove who it is.
_ANYBODY = ssl.create_default_context()
_ANYBODY.check_hostname = False
_ANYBODY.verify_mode = ssl.CERT_NONE


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2, context=_ANYBODY):  # noqa: S310 - our own address
            return True
    except (OSError, urllib.error.URLError):
        return False


def _end_with_parent() -> None:
    """Runs in the child: asks the kernel for SIGTERM when the supervisor dies, so that no service is left behind."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _ending(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        return f"signal {signal.Signals(-returncode).name}"
    return f"exit status {returncode}"


def python(*arguments: str) -> list[str]:
    """Returns the command line of a manage.py command with this interpreter, unbuffered."""
    return [sys.executable, "-u", os.path.join(os.path.dirname(os.path.dirname(__file__)), "manage.py"), *arguments]
