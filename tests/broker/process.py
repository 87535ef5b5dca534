"""The broker as a real process, for tests that kill it."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_LISTENING = re.compile(r"listening on 127\.0\.0\.1:(\d+), HTTP on 127\.0\.0\.1:(\d+)")


class BrokerProcess:
    """One ``manage.py runbroker`` on free ports. ``lines`` is what it logged."""

    def __init__(self, state_dir: Path, *flags: str, prefix: Sequence[str] = (), **environment: str) -> None:
        command = [*prefix, sys.executable, "manage.py", "runbroker", "--state-dir", str(state_dir)]
        command += ["--tcp-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", *flags]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        self._news: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first line from now on that matches. Raises AssertionError when the process ends before."""
        while (line := self._news.get(timeout=60)) is not None:
            if match := re.search(pattern, line):
                return match
        raise AssertionError("\n".join(["the broker ended:", *self.lines]))

    def wait_listening(self) -> tuple[int, int]:
        """Its ports, TCP and HTTP."""
        match = self.wait_for(_LISTENING.pattern)
        return int(match[1]), int(match[2])

    def wait_end(self) -> int:
        """Its exit status."""
        status = self.process.wait(60)
        self._thread.join()
        return status

    def pids(self) -> list[int]:
        """Of the process that was started and of its children, the broker last."""
        pid = self.process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except FileNotFoundError:
            return []
        return [pid, *map(int, children)]

    def kill_traced(self) -> None:
        """kill -9 of the broker, also where it runs under a tracer."""
        os.kill(self.pids()[-1], signal.SIGKILL)

    def end(self) -> None:
        """Make sure that nothing of it is left."""
        for pid in reversed(self.pids()):
            # A tracer that is killed first would leave what it traces behind.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait_end()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            self._news.put(line)
        self._news.put(None)


@contextmanager
def broker_process(
    state_dir: Path, *flags: str, prefix: Sequence[str] = (), **environment: str
) -> Iterator[BrokerProcess]:
    """A broker process that is gone at the end of the block. ``prefix`` is a command that runs it (strace, unshare)."""
    process = BrokerProcess(state_dir, *flags, prefix=prefix, **environment)
    try:
        yield process
    finally:
        process.end()
