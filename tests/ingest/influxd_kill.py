"""The long run on InfluxDB: kill -9 of the server, again and again, while a capture streams; then the server counts.

python -m tests.ingest.influxd_kill --readings 500000 --kills 5
python -m tests.ingest.influxd_kill --readings 500000 --kills 1 --away 60   # row 20 of the broker's fault matrix
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from broker.client.client import fetch_stats
from ingest.simulator.capture import CaptureShape, write_capture
from tests.influxd import Influxd, find_binary
from tests.ingest.kill_rounds import all_committed
from tests.ingest.processes import Fleet, wait_until

BUCKET = "kill"
METRICS = 10  # of a synthetic GPU


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run ended with; counts are the server's own."""

    in_capture: int
    counted: int
    points: int
    series: int
    kills: int
    seconds: float
    collector_peak_mib: float
    most_lag: int  # messages that the collector was behind while the server was away
    last_lag: int  # at the end
    collector_log: str

    @property
    def good(self) -> bool:
        """Whether every reading is there, once."""
        return self.counted == self.in_capture and self.last_lag == 0

    def __str__(self) -> str:
        return (
            f"{self.in_capture} readings in the capture, {self.counted} on the server ({self.points} points of"
            f" {self.series} series) after {self.kills} kills of influxd in {self.seconds:.0f} s;"
            f" the collector took {self.collector_peak_mib:.0f} MiB at most and was {self.most_lag} messages behind, {self.last_lag} at the end"
        )


def run(
    folder: Path, binary: str, *, readings: int, kills: int, rate: int, gpus: int = 256, away: float | None = None
) -> Outcome:
    """Stream a synthetic capture of about so many readings at ``rate`` a second, killing the server meanwhile.

    ``away``: seconds for which it is gone each time; else a moment.
    """
    hosts = max(1, gpus // 8)
    capture = folder / "capture.csv"
    in_capture = write_capture(capture, CaptureShape(hosts, 8, -(-readings // (hosts * 8 * METRICS)), 5))
    server = Influxd(binary, folder / "influxd")
    chance = random.Random(1)
    fleet = None
    try:
        server.start()
        fleet = Fleet(
            folder / "state",
            STORAGE_TYPE="influxdb",
            INFLUXDB_URL=server.url,
            INFLUXDB_TOKEN=server.token,
            INFLUXDB_ORG=server.org,
            INFLUXDB_BUCKET=BUCKET,
            CSV_PATH=capture,
            BATCH_SIZE=1000,
            RATE=rate,
        )
        fleet.migrate()
        began = time.monotonic()
        most_lag = 0
        for service, said in ((fleet.broker, "listening on"), (fleet.collector, "subscribed as")):
            service.start()
            service.wait_for(said)
        fleet.streamer.start()
        for number in range(kills):
            wanted = in_capture * (number + 1) // (kills + 1)
            wait_until(lambda wanted=wanted: _readings(server) >= wanted, "readings on the server")  # type: ignore[misc]
            time.sleep(chance.uniform(0.0, 0.5))  # anywhere in a write
            server.kill()
            most_lag = max(most_lag, _wait_behind(fleet, chance.uniform(0.2, 1.5) if away is None else away))
            server.start()
        if fleet.streamer.wait(300) != 0:
            raise RuntimeError(fleet.streamer.log[-2000:])
        wait_until(lambda: all_committed(fleet) or fleet.collector.returncode is not None, "the last commit")
        seconds = time.monotonic() - began
        peak = fleet.collector.peak_mib()
        last_lag = _lag(fleet)
        fleet.collector.stop()
        return Outcome(
            in_capture, _readings(server), _points(server), len(server.query(BUCKET, "SHOW SERIES")), kills, seconds,
            peak, most_lag, last_lag, fleet.collector.log,
        )  # fmt: skip
    finally:
        if fleet is not None:
            fleet.kill_all()
        server.stop()


def _lag(fleet: Fleet) -> int:
    """How many messages the collector has not committed."""
    subscribers = fetch_stats("127.0.0.1", fleet.port)["subscribers"]
    return next((int(one["lag"]) for one in subscribers if one["id"] == "collector-1"), 0)


def _wait_behind(fleet: Fleet, seconds: float) -> int:
    """Let the server be away for so long; the most that the collector was behind meanwhile."""
    end = time.monotonic() + seconds
    most = 0
    while (left := end - time.monotonic()) > 0:
        most = max(most, _lag(fleet))
        time.sleep(min(left, 0.5))
    return most


def _points(server: Influxd) -> int:
    rows = server.query(BUCKET, 'SELECT count("pod") FROM "gpu"')
    return int(rows[0][1]) if rows else 0


def _readings(server: Influxd) -> int:
    names = [name for name, kind in server.query(BUCKET, 'SHOW FIELD KEYS FROM "gpu"') if kind == "float"]
    if not names:
        return 0
    counts = ", ".join(f'count("{name}")' for name in names)
    rows = server.query(BUCKET, f'SELECT {counts} FROM "gpu"')
    return sum(count or 0 for row in rows for count in row[1:])


def main() -> int:
    """Run it, print the figures; exit status 0 when all is good."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=int, default=500_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--rate", type=int, default=20_000, help="readings per second [%(default)s]")
    parser.add_argument("--away", type=float, help="seconds for which the server is gone each time [a moment]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="influxd-kill-") as folder:
        outcome = run(
            Path(folder),
            find_binary(),
            readings=options.readings,
            kills=options.kills,
            rate=options.rate,
            away=options.away,
        )
    sys.stdout.write("".join(f"{line}\n" for line in outcome.collector_log.splitlines() if "ingest.reconnect" in line))
    sys.stdout.write(f"{outcome}\n")
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
