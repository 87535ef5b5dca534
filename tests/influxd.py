"""A real influxd for the tests: one server for the run, a fresh bucket for each test."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stores.influxdb.client import InfluxConfig
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[1]
ORG, TOKEN = "cisco", "test-token-of-the-operator"
START_SECONDS = 60.0


def find_binary() -> str:
    """The influxd on PATH or in the cache; without one the test is skipped, or fails where REQUIRE_INFLUXDB is 1."""
    found = subprocess.run([str(ROOT / "ci" / "influxd.sh"), "--find"], capture_output=True, text=True, check=False)
    path = found.stdout.strip()
    if found.returncode == 0 and path:
        return path
    message = "needs a real influxd: run make influxd (some minutes, once)"
    if os.environ.get("REQUIRE_INFLUXDB") == "1":
        pytest.fail(message)
    pytest.skip(message)


@dataclass
class Influxd:
    """One influxd process with its own folder; it can be killed and started again on the same data and port."""

    binary: str
    folder: Path
    port: int = 0
    token: str = TOKEN
    org: str = ORG
    process: subprocess.Popen[bytes] | None = None
    _buckets: Any = field(default_factory=lambda: itertools.count(1))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers; the first time, set it up."""
        self.port = self.port or free_port()
        first = not (self.folder / "i.bolt").exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    self.binary, "--bolt-path", str(self.folder / "i.bolt"), "--engine-path", str(self.folder / "engine"),
                    "--sqlite-path", str(self.folder / "i.sqlite"), "--http-bind-address", f"127.0.0.1:{self.port}",
                    "--reporting-disabled", "--log-level", "error",
                ],
                stdout=log,
                stderr=log,
            )  # fmt: skip
        self._wait_until_healthy()
        if first:
            body = {
                "username": "operator",
                "password": "operator-password",
                "org": ORG,
                "bucket": "first",
                "token": self.token,
            }
            self.ask("POST", "/api/v2/setup", body)

    def _wait_until_healthy(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            try:
                if self.ask("GET", "/health").get("status") == "pass":
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("influxd did not become healthy")

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def ask(self, method: str, path: str, body: object = None, *, token: str = "") -> Any:
        """Ask the server by itself, not through the store; raises urllib's HTTPError."""
        data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data=data, method=method, headers={"Authorization": f"Token {token or self.token}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text.strip() else None

    def query(self, bucket: str, statement: str) -> list[list[Any]]:
        """The rows of an InfluxQL statement, of all series."""
        form = urllib.parse.urlencode({"q": statement, "db": bucket, "epoch": "ns", "org": self.org})
        answer = self.ask("GET", f"/query?{form}")
        return [row for each in answer["results"][0].get("series", ()) for row in each.get("values", ())]

    def write(self, bucket: str, lines: str) -> None:
        """Write lines past the store."""
        self.ask("POST", f"/api/v2/write?org={self.org}&bucket={bucket}&precision=ns", lines)

    def bucket(self, name: str) -> dict[str, Any] | None:
        """The bucket of that name."""
        found = self.ask("GET", f"/api/v2/buckets?org={self.org}&limit=100")["buckets"]
        return next((each for each in found if each["name"] == name), None)

    def drop_bucket(self, name: str) -> None:
        """Delete it, if it is there."""
        bucket = self.bucket(name)
        if bucket is not None:
            self.ask("DELETE", f"/api/v2/buckets/{bucket['id']}")

    def limited_token(self, *permissions: tuple[str, str]) -> str:
        """A token that may do these (action, resource type) in the organization and nothing else."""
        org_id = self.ask("GET", f"/api/v2/orgs?org={self.org}")["orgs"][0]["id"]
        rights = [
            {"action": action, "resource": {"type": kind, "id" if kind == "orgs" else "orgID": org_id}}
            for action, kind in permissions
        ]
        return str(self.ask("POST", "/api/v2/authorizations", {"orgID": org_id, "permissions": rights})["token"])

    def config(self, **changes: Any) -> InfluxConfig:
        """The settings of a store in a bucket that is not there yet, kept for ever unless told otherwise."""
        told: dict[str, Any] = {
            "url": self.url, "token": self.token, "org": self.org, "bucket": f"test-{next(self._buckets)}",
        }  # fmt: skip
        return InfluxConfig(**(told | changes))
