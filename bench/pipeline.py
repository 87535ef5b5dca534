"""The whole pipeline as processes with a store of its own, for programs that measure it: what each costs, and how it answers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import urllib3

from tests.influxd import Influxd, find_binary
from tests.ingest.processes import Fleet, Service, all_committed, wait_until
from tests.ports import free_port

STORES = ("influxdb", "sqlite")
_CPU_CLOCK = 2  # Linux: the clock of all CPU time of a process


class Reply(NamedTuple):
    """An answer of the web service, and the seconds until all of it was there."""

    status: int
    body: bytes
    seconds: float


class Pipeline:
    """Broker, collector, watch, web service and store, each a process. A context manager; settings are those of all.

    Defaults are the product's own, but for ports, folders and the login.
    """

    def __init__(self, folder: Path, store: str, settings: Mapping[str, str], *, watch: bool = True) -> None:
        self._stack = ExitStack()
        self._influxd = Influxd(find_binary(), folder / "influxd") if store == "influxdb" else None
        port = free_port()
        own: dict[str, object] = {"STORAGE_TYPE": store, "API_AUTH_REQUIRED": "false", "PORT": port}
        if self._influxd is not None:
            self._influxd.port = free_port()
            own |= {"INFLUXDB_URL": self._influxd.url, "INFLUXDB_TOKEN": self._influxd.token}
        chosen = {"FLUSH_INTERVAL": "10s", "RETENTION_PERIOD": "24h"} | own | dict(settings)
        self.fleet = Fleet(folder / "state", **chosen)
        self.broker, self.collector = self.fleet.broker, self.fleet.collector
        self._services = [self.broker, self.collector]
        if watch:
            self._services.append(Service("watch", self.fleet, "watch"))
        self._api = Service("api", self.fleet, "serve")
        self._services.append(self._api)
        self._pool = urllib3.HTTPConnectionPool("127.0.0.1", port, timeout=120, maxsize=4, retries=False)

    def __enter__(self) -> Self:
        try:
            if self._influxd is not None:
                self._stack.callback(self._influxd.stop)
                self._influxd.start()
            self.fleet.migrate()
            for service in self._services:
                self._stack.callback(service.kill)
                service.start()
                if service is self.broker:
                    service.wait_for("listening on")
            self._stack.callback(self._pool.close)
            wait_until(self._answers, "the web service to answer")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _answers(self) -> bool:
        try:
            return self.ask("/ready").status == 200
        except OSError:
            return False

    @property
    def port(self) -> int:
        """The broker's."""
        return self.fleet.port

    def wait_until_collected(self, seconds: float = 600.0) -> None:
        """Return when the collector has committed all that is in the log."""
        wait_until(lambda: all_committed(self.fleet), "the collector to commit all", seconds)

    def ask(self, path: str) -> Reply:
        """Ask the web service over a connection that is kept, one for each thread. An error status is an answer like any other.

        Raises OSError where there is no answer.
        """
        began = time.perf_counter()
        try:
            response = self._pool.request("GET", path, headers={"Accept-Encoding": "gzip"})
        except urllib3.exceptions.HTTPError as error:
            raise OSError(f"{path}: {error!r}") from error
        return Reply(response.status, response.data, time.perf_counter() - began)

    def processes(self) -> dict[str, list[int]]:
        """The process ids of each service: the web service's workers are its own."""
        found = {service.name: [service.pid] for service in self._services}
        found["api"] += children(self._api.pid)
        if self._influxd is not None and self._influxd.process is not None:
            found["influxd"] = [self._influxd.process.pid]
        return found

    def cpu(self) -> dict[str, float]:
        """The CPU time in seconds that each has taken so far."""
        return {name: sum(cpu_of(pid) for pid in pids) for name, pids in self.processes().items()}

    def memory(self, field: str = "RssAnon") -> dict[str, float]:
        """Memory in MiB now, by the kernel's name for it; RssAnon is what is a process's own."""
        return {name: sum(memory_of(pid, field) for pid in pids) for name, pids in self.processes().items()}


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_of(pid: int) -> float:
    """The CPU time in seconds that a process has taken, in all its threads, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | _CPU_CLOCK)


def memory_of(pid: int, field: str) -> float:
    """A figure of a process's memory in MiB, under the kernel's name for it; 0 where it does not tell."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), 0.0)
