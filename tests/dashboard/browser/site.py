"""A real web service over a synthetic fleet."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.api.serving import ROOT, Service, environment, serving
from tests.broker.process import broker_process


@dataclass
class Site:
    """A web service, and the process that writes what it shows."""

    service: Service
    state: Path
    filler: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        """As ``http://127.0.0.1:8080``."""
        return self.service.address

    def report(self, slot: str = "", **values: float) -> None:
        """The whole fleet reports once more. These values of a slot ("host/number") are the newest from now on."""
        self.say(**({"slot": slot, "values": values} if slot else {}))

    def say(self, **order: object) -> None:
        """Give the filler an order; see filling.py."""
        assert self.filler is not None
        assert self.filler.stdin is not None
        assert self.filler.stdout is not None
        print(json.dumps(order), file=self.filler.stdin, flush=True)
        assert self.filler.stdout.readline() == "ok\n"

    def gpu(self, slot: str) -> str:
        """The id of the GPU in a slot."""
        host, _, number = slot.rpartition("/")
        for row in json.loads(self.service.get("/api/v1/gpus?page_size=1000").body)["gpus"]:
            if row["hostname"] == host and row["gpu_id"] == int(number):
                return str(row["id"])
        raise LookupError(slot)


@contextmanager
def filled(state: Path, *arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Fill a state folder; yields the process that goes on with it."""
    log = (state / "filling.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.dashboard.browser.filling", *arguments],
        cwd=ROOT,
        env=environment(state, DJANGO_SETTINGS_MODULE="telemetry_site.settings", **environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ok\n", (state / "filling.log").read_text()[-2000:]
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, log):
            stream.close()


@contextmanager
def filled_site(state: Path, *arguments: str, **environ: str) -> Iterator[Site]:
    """A web service over a filled state folder, beside a broker; ``environ`` are settings of all."""
    with (
        broker_process(state) as broker,
        filled(state, *arguments, **environ) as filler,
        serving(state, cwd=ROOT, MQ_PORT=str(broker.wait_listening()[0]), **environ) as service,
    ):
        yield Site(service, state, filler)
