"""The real services as processes, each with a log file, on one state folder and one pair of ports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from broker.client.client import fetch_stats
from broker.errors import BrokerUnavailable
from telemetry_site.options import BY_NAME
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0


class Service:
    """One ``manage.py`` command that can be killed and started again."""

    def __init__(self, name: str, fleet: Fleet, *arguments: str) -> None:
        self.name = name
        self.starts = 0
        self.log_path = fleet.state_dir / f"{name}.output"
        self._arguments = arguments
        self._environ = fleet.environ
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        """Start it, with further arguments if need be; what it writes is appended to its log."""
        self.starts += 1
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), *self._arguments, *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self._environ,
                cwd=ROOT,
            )

    @property
    def log(self) -> str:
        """All that it has written, over all its starts."""
        return self.log_path.read_text() if self.log_path.exists() else ""

    @property
    def pid(self) -> int:
        """Its process id; 0 when it was never started."""
        return self._process.pid if self._process else 0

    @property
    def returncode(self) -> int | None:
        """Its exit status; None while it runs or when it was never started."""
        return None if self._process is None else self._process.poll()

    def peak_mib(self) -> float:
        """The most memory it has taken, in MiB, while it runs; 0 where the kernel does not tell."""
        return self.memory_mib("VmHWM")

    def memory_mib(self, field: str = "VmRSS") -> float:
        """A figure of its memory now, in MiB, under the kernel's name for it (/proc/PID/status); 0 where it does not tell."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except OSError:
            return 0.0
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":")), 0.0)

    def cpu_seconds(self) -> float:
        """The CPU time it has taken, in all its threads, while it runs; 0 where the kernel does not tell."""
        try:
            fields = (
                Path(f"/proc/{self._process.pid if self._process else 0}/stat").read_text().rpartition(")")[2].split()
            )
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait(self, seconds: float = 60.0) -> int:
        """Wait for its end; returns the exit status."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.wait(seconds)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait for the end."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def stop(self) -> tuple[int, float]:
        """SIGTERM; returns the exit status and the seconds it took."""
        began = time.monotonic()
        self.signal(signal.SIGTERM)
        return self.wait(), time.monotonic() - began

    def wait_for(self, text: str) -> None:
        """Wait until its newest start has written ``text``. Raises TimeoutError, with the log."""
        wait_until(lambda: self.log.count(text) >= self.starts or self.returncode is not None, self.log_path.name)
        if text not in self.log:
            raise RuntimeError(f"{self.name} ended with {self.returncode}: {self.log}")


class Fleet:
    """Broker, collector and streamer of one pipeline."""

    def __init__(self, state_dir: Path, **settings: object) -> None:
        self.state_dir = state_dir
        state_dir.mkdir(parents=True, exist_ok=True)
        self.port, self.http_port = free_port(), free_port()
        self.environ = {
            # No setting of whoever runs this.
            **{name: value for name, value in os.environ.items() if name.removesuffix("_FILE") not in BY_NAME},
            "STATE_DIR": str(state_dir),
            "TCP_ADDR": f"127.0.0.1:{self.port}",
            "HTTP_ADDR": f"127.0.0.1:{self.http_port}",
            "MQ_HOST": "127.0.0.1",
            "MQ_PORT": str(self.port),
            "TIMESTAMPS": "source",
            "RETENTION_PERIOD": "0",
            "FLUSH_INTERVAL": "200ms",
            "COLLECT_INTERVAL": "200ms",
            **{name: str(value) for name, value in settings.items()},
        }
        self.broker = Service("broker", self, "runbroker")
        self.collector = Service("collector", self, "collect")
        self.streamer = Service("streamer", self, "stream")

    @property
    def services(self) -> list[Service]:
        """All three, in the order in which they are started."""
        return [self.broker, self.collector, self.streamer]

    def migrate(self) -> None:
        """Make the inventory's database."""
        subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), "migrate", "-v0"], env=self.environ, cwd=ROOT, check=True
        )

    def kill_all(self) -> None:
        """End whatever still runs."""
        for service in self.services:
            service.kill()


def all_committed(fleet: Fleet) -> bool:
    """Whether the collector has committed all that is in the log."""
    try:
        stats = fetch_stats("127.0.0.1", fleet.port)
    except BrokerUnavailable:
        return False
    return any(
        subscriber["id"] == "collector-1" and subscriber["committed_offset"] == stats["latest_offset"]
        for subscriber in stats["subscribers"]
    )


def wait_until(condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Wait for something that other processes do. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not in {seconds:g} s")
        time.sleep(0.05)
