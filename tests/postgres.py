"""A real PostgreSQL for the tests: a cluster of our own in a temporary folder, on a free port of the loopback."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.ports import free_port

START_SECONDS = 60.0
# PostgreSQL refuses to run as root; its package makes this user.
USER = "postgres"


def find_bin() -> Path | None:
    """The folder of PostgreSQL's programs: on PATH, or where Debian's package puts the newest."""
    found = shutil.which("postgres")
    if found:
        return Path(found).resolve().parent
    kept = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(_version(path)))
    return kept[-1].parent if kept else None


def required_bin() -> Path:
    """That folder; without it the test is skipped, or fails where REQUIRE_POSTGRES is 1."""
    folder = find_bin()
    if folder is not None:
        return folder
    message = "needs a real PostgreSQL: apt-get install postgresql"
    if os.environ.get("REQUIRE_POSTGRES") == "1":
        pytest.fail(message)
    pytest.skip(message)


def folder_for_cluster() -> tempfile.TemporaryDirectory[str]:
    """Not under pytest's own folders: only their owner gets there, and PostgreSQL's user is another."""
    return tempfile.TemporaryDirectory(prefix="gpu-telemetry-postgres-")


def _version(path: Path) -> str:
    return re.sub(r"\D", "", path.parts[-3]) or "0"


@dataclass
class Postgres:
    """One cluster in ``folder``, which its user can get to. Stopped, also in the hard way, it starts again on the same data."""

    programs: Path
    folder: Path
    port: int = 0
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it takes connections; the first time, make the cluster."""
        data = self.folder / "data"
        if not data.exists():
            self._make(data)
        self.port = self.port or free_port()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    self.programs / "postgres", "-D", data, "-p", str(self.port), "-h", "127.0.0.1",
                    "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=60",
                    "-c", "deadlock_timeout=100ms",
                ],
                stdout=log, stderr=log, cwd="/", **self._as_user(),
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "PostgreSQL does not take connections"
                time.sleep(0.05)
            else:
                return

    def _make(self, data: Path) -> None:
        secret = self.folder / "password"
        secret.write_text(self.password)
        if os.getuid() == 0:
            shutil.chown(self.folder, USER)
            shutil.chown(secret, USER)
        subprocess.run(
            [
                self.programs / "initdb", "-D", data, "-U", "gpu", "-A", "scram-sha-256", "--pwfile", secret,
                "-E", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--no-instructions",
            ],
            check=True, cwd="/", capture_output=True, **self._as_user(),
        )  # fmt: skip

    def _as_user(self) -> dict[str, Any]:
        return {"user": USER, "group": USER} if os.getuid() == 0 else {}

    def url(self, database: str) -> str:
        """DATABASE_URL for a database of it."""
        return f"postgres://gpu:{self.password}@127.0.0.1:{self.port}/{database}"

    def make_database(self, name: str) -> str:
        """A fresh empty database; its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def stop(self, *, hard: bool = False) -> None:
        """End it; ``hard`` as a crash would, with every connection cut."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT if hard else signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
