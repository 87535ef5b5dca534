"""The broker goes away in the middle of a live scrape: nothing is lost, the spool fills and empties, all comes in order.

    python -m tests.ingest.broker_away [--seconds 60] [--targets 20]

Real processes: fake exporters, a streamer that scrapes each once a second, broker and collector. The broker is killed, stays
away, and is started again. What the streamer says it read is then compared with the log and with the store.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import re
import signal
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from broker.client.client import fetch_stats
from readings.times import SECOND
from stores.sqlite import SqliteStore
from tests.ingest.captures import Reading, stored_readings
from tests.ingest.kill_rounds import all_committed
from tests.ingest.log_reader import read_batches, readings_of
from tests.ingest.processes import Fleet, Service, free_port, wait_until

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.2


@dataclass
class Outcome:
    """What came of it. ``most_waiting`` and ``most_spool_bytes`` while the broker was away; ``longest_gap_s`` between two
    readings of one series."""

    away_s: float = 0.0
    read: int = 0
    sent: int = 0
    most_waiting: int = 0
    most_spool_bytes: int = 0
    left_waiting: int = -1
    emptied_s: float = 0.0
    in_log: int = 0
    twice_in_log: int = 0
    out_of_order: int = 0
    stored: int = 0
    longest_gap_s: float = 0.0

    @property
    def good(self) -> bool:
        """Nothing lost, nothing twice, all in order, and the spool had to do with it."""
        whole = self.read == self.sent == self.in_log == self.stored
        return whole and not self.twice_in_log and not self.out_of_order and self.most_waiting > 0 == self.left_waiting

    def __str__(self) -> str:
        return (
            f"broker away for {self.away_s:.0f} s; readings read {self.read}, sent {self.sent}, in the log {self.in_log}, "
            f"stored {self.stored}; twice {self.twice_in_log}, out of order {self.out_of_order}\n"
            f"spool: {self.most_waiting} batches and {self.most_spool_bytes / 1e6:.1f} MB at most, "
            f"{self.left_waiting} left {self.emptied_s:.1f} s after the broker was back; "
            f"longest time between two readings of a series {self.longest_gap_s:.2f} s\n{'good' if self.good else 'BAD'}"
        )


def run(state_dir: Path, *, seconds: float, targets: int = 20, before: int = 3000) -> Outcome:
    """Take the broker away for so long, once ``before`` readings are sent."""
    port = free_port()
    listed = state_dir / "targets.txt"
    fleet = Fleet(
        state_dir, SOURCE="dcgm", TARGETS=listed, SCRAPE_INTERVAL="1s", COLLECT_INTERVAL="1s", SPOOL_BYTES="256MiB"
    )
    exporters = Service(
        "exporters",
        fleet,
        *("fakeexporter", "--port", "0", "--hosts", str(targets), "--gpus-per-host", "2", "--list", str(listed)),
    )
    outcome = Outcome()
    fleet.migrate()
    try:
        exporters.start()
        fleet.broker.start()
        fleet.collector.start()
        wait_until(listed.exists, "the exporters")
        fleet.streamer.start("--metrics-addr", f"127.0.0.1:{port}")
        fleet.streamer.wait_for("streaming ")
        wait_until(lambda: _figure(port, "readings_sent_total") >= before, "the first readings")
        logger.info("the broker goes away")
        fleet.broker.kill()
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            time.sleep(LOOK_SECONDS)
            outcome.most_waiting = max(outcome.most_waiting, int(_figure(port, "batches_waiting")))
            outcome.most_spool_bytes = max(outcome.most_spool_bytes, int(_figure(port, "spool_bytes")))
        fleet.broker.start()
        fleet.broker.wait_for("listening on")
        outcome.away_s = time.monotonic() - began
        back = time.monotonic()
        # While it scrapes there is always a batch on its way: few are left is what an emptied spool looks like.
        wait_until(lambda: _figure(port, "behind_seconds") < 2, "the spool to be emptied", 300)
        outcome.emptied_s = time.monotonic() - back
        logger.info("the broker is back, and has all that waited")
        fleet.streamer.signal(signal.SIGTERM)
        fleet.streamer.wait()
        wait_until(lambda: all_committed(fleet), "the collector to commit all", 120)
        fleet.collector.stop()
        last = re.findall(r"stopped: (\d+) readings read; (\d+) sent .*", fleet.streamer.log)[-1]
        outcome.read, outcome.sent = int(last[0]), int(last[1])
        outcome.left_waiting = 0 if "the spool keeps" not in fleet.streamer.log else 1
        logger.info("reading %d messages back", fetch_stats("127.0.0.1", fleet.port)["total_messages"])
        _compare(asyncio.run(_log_of(fleet.port)), outcome)
        fleet.broker.stop()
    finally:
        for service in (*fleet.services, exporters):
            service.kill()
    store = SqliteStore(state_dir / "readings.sqlite3")
    try:
        outcome.stored = len(set(stored_readings(store)))
    finally:
        store.close()
    return outcome


async def _log_of(port: int) -> list[Reading]:
    return readings_of(batch.block for batch in await read_batches(port))


def _compare(readings: list[Reading], outcome: Outcome) -> None:
    """Count what is in the log, as it stands there."""
    outcome.in_log = len(readings)
    seen: Counter[tuple[str, str, int]] = Counter()
    newest: dict[tuple[str, str], int] = {}
    for uuid, metric, time_ns, _ in readings:
        seen[uuid, metric, time_ns] += 1
        before = newest.get((uuid, metric))
        if before is not None:
            outcome.out_of_order += time_ns < before
            outcome.longest_gap_s = max(outcome.longest_gap_s, (time_ns - before) / SECOND)
        newest[uuid, metric] = time_ns
    outcome.twice_in_log = sum(count - 1 for count in seen.values())


def _figure(port: int, name: str) -> float:
    """One of the streamer's own figures."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found = re.search(rf"^gpu_telemetry_streamer_{name} (\S+)$", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/metrics tells no {name}")
    return float(found[1])


def main() -> int:
    """Run, print the figures; exit status 0 when all is good."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--targets", type=int, default=20)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with tempfile.TemporaryDirectory(prefix="broker-away-") as folder:
        outcome = run(Path(folder), seconds=options.seconds, targets=options.targets)
    sys.stdout.write(f"{outcome}\n")
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
