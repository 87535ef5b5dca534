"""A real Alertmanager for the tests. It keeps alerts in memory alone, so a restart forgets them."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 30.0


def find_alertmanager() -> str:
    """The one on PATH or in the cache; without one the test is skipped, or fails where REQUIRE_ALERTMANAGER is 1."""
    found = subprocess.run(
        [str(ROOT / "ci" / "alertmanager.sh"), "--find"], capture_output=True, text=True, check=False
    )
    path = found.stdout.strip()
    if found.returncode == 0 and path:
        return path
    message = "needs a real Alertmanager: run make alertmanager"
    if os.environ.get("REQUIRE_ALERTMANAGER") == "1":
        pytest.fail(message)
    pytest.skip(message)


@dataclass
class Alertmanager:
    """One process. It hands what fires, and what is over, to ``webhook`` at once."""

    binary: str
    folder: Path
    webhook: str
    user: str = ""
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.port = self.port or free_port()
        config = {
            "route": {
                "receiver": "hook",
                "group_by": ["..."],
                "group_wait": "0s",
                "group_interval": "1s",
                "repeat_interval": "1h",
            },
            "receivers": [{"name": "hook", "webhook_configs": [{"url": self.webhook, "send_resolved": True}]}],
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yml").write_text(json.dumps(config))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    self.binary, "--config.file", str(self.folder / "config.yml"), "--storage.path", str(self.folder / "data"),
                    "--web.listen-address", f"127.0.0.1:{self.port}", "--cluster.listen-address", "",
                ],
                stdout=log,
                stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the Alertmanager did not become ready")

    def stop(self) -> None:
        """End it."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def alerts(self) -> list[dict[str, Any]]:
        """Those that fire now."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found
