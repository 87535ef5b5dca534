"""A real web service in a process of its own, for tests that ask it over HTTP."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60
STOP_SECONDS = 15


class Answer(NamedTuple):
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Service:
    """``manage.py serve`` on a free port."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.address = ""
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            if match := re.search(r"Listening at: (http://[^\s,]+)", line):
                self.address = match[1]
                self._listening.set()
        self._listening.set()

    def wait_until_listening(self) -> None:
        """Return when it has said where it listens."""
        assert self._listening.wait(START_SECONDS)
        assert self.address, self.lines

    def get(self, path: str, **headers: str) -> Answer:
        """Ask it; an error status is an answer like any other."""
        url = path if path.startswith("http") else self.address + path
        request = urllib.request.Request(url, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=START_SECONDS) as response:
                return Answer(response.status, dict(response.headers), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read())

    def stop(self, number: int) -> int:
        """Send a signal; the exit status."""
        self.process.send_signal(number)
        status = self.process.wait(STOP_SECONDS)
        self._reader.join()
        return status

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


def environment(state_dir: Path, **values: str) -> dict[str, str]:
    """Of the developer's environment only what a process needs; the state is the test's own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in {"PATH", "HOME", "LANG", "TMPDIR"} or name.startswith(("COV_", "COVERAGE_"))
    }
    return {**kept, "STATE_DIR": str(state_dir), **values}


def manage(*arguments: str) -> list[str]:
    """The command line of a manage.py command."""
    return [sys.executable, str(ROOT / "manage.py"), *arguments]


def migrated(folder: Path) -> Path:
    """Make a migrated database in a state folder. Returns the folder."""
    subprocess.run(manage("migrate", "--verbosity", "0"), env=environment(folder), check=True, timeout=START_SECONDS)
    return folder


@contextmanager
def serving(state_dir: Path, *flags: str, cwd: Path = ROOT, **environ: str) -> Iterator[Service]:
    """Run ``manage.py serve --port 0`` and wait until it listens."""
    command = manage("serve", "--port", "0", "--web-concurrency", "1", *flags)
    with listening(command, environment(state_dir, **environ), cwd=cwd) as service:
        yield service


@contextmanager
def listening(
    command: list[str], environ: dict[str, str], *, cwd: Path = ROOT, pass_fds: tuple[int, ...] = ()
) -> Iterator[Service]:
    """Run a web service and wait until it listens."""
    process = subprocess.Popen(
        command,
        env=environ,
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=pass_fds,
    )
    service = Service(process)
    try:
        service.wait_until_listening()
        yield service
    finally:
        service.close()
