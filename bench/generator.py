"""A made fleet that reports to a broker every ten seconds, host after host: a process of its own, so that its cost is not counted.

    python -m bench.generator --port 9000 --gpus 10000 --metrics 25

It prints a JSON line for each report: readings sent so far, and by how much it was late at worst in this report.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

from bench.watch import STEP_S, MadeFleet
from broker.client.client import BrokerClient
from ingest.simulator.fleet import METRIC_SETS
from tests.ingest.processes import ROOT

# The fleet's hosts are scraped one after the other: so many parts of it in each second.
PARTS_A_SECOND = 10


def metric_names(count: int) -> list[str]:
    """dcgm-exporter's default metrics, then the rest of the catalogue, then made-up ones."""
    known = list(dict.fromkeys((*METRIC_SETS["default"], *METRIC_SETS["all"])))
    return [*known, *(f"DCGM_FI_DEV_FIELD_{number}" for number in range(count))][:count]


async def generate(port: int, made: MadeFleet, reports: int | None = None) -> None:
    """Report until killed, or so many times."""
    client = await BrokerClient.connect("127.0.0.1", port)
    parts = STEP_S * PARTS_A_SECOND
    began, sent, done = time.monotonic(), 0, 0
    while reports is None or done < reports:
        late = 0.0
        for part in range(parts):
            due = began + done * STEP_S + part / PARTS_A_SECOND
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            answer = None
            for message in made.part(part, parts, time.time_ns()):
                answer = client.publish(message)
                await client.drain()
            if answer is not None:
                await answer
            late = max(late, time.monotonic() - due)
        done += 1
        sent += made.gpus * len(made.metric_names)
        print(json.dumps({"sent": sent, "late_s": round(late, 3)}), flush=True)
    await client.close()


class Generator:
    """The process."""

    def __init__(self, port: int, gpus: int, metrics: int, batch: int, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "bench.generator",
                    "--port", str(port), "--gpus", str(gpus), "--metrics", str(metrics), "--batch", str(batch),
                ],
                stdout=output,
                cwd=ROOT,
            )  # fmt: skip

    def reports(self) -> list[dict[str, float]]:
        """What it has printed. Raises RuntimeError if it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the generator ended with {self._process.returncode}")
        return [json.loads(line) for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def main() -> None:
    """Report until killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--gpus", type=int, default=1_000)
    parser.add_argument("--metrics", type=int, default=25)
    parser.add_argument("--batch", type=int, default=100, help="readings of a message [%(default)s]")
    options = parser.parse_args()
    asyncio.run(generate(options.port, MadeFleet(options.gpus, options.batch, metric_names(options.metrics))))


if __name__ == "__main__":
    main()
