"""Hundreds of exporters, some of which hang and some of which answer nonsense: the others' readings stay fresh, memory stays flat.

    python -m tests.ingest.many_targets [--targets 500] [--gpus-per-host 1] [--minutes 10]

Real processes: fake exporters of every generation, a streamer that scrapes each once a second, the broker. What is measured is
measured at the far end, by a subscriber of the log: the age of the newest reading of each exporter that is well.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from broker.client.client import BrokerClient, Gap
from readings.batch import decode
from readings.times import SECOND
from tests.ingest.processes import Fleet, Service, wait_until

logger = logging.getLogger(__name__)

OLDEST_ALLOWED_S = 3.0
LOOK_SECONDS = 0.25
# The first minutes fill caches and connections; from then on memory may wander by so much, and no more.
WARM_UP_MINUTES = 2
WANDER = 0.05


class Minute(NamedTuple):
    """What was seen in a minute: the greatest age of any healthy target's newest reading, and memory at its end."""

    worst_age_s: float
    rss_mib: float
    anonymous_mib: float
    broker_rss_mib: float
    readings: int
    cpus: tuple[float, float, float]  # of streamer, broker and exporters, in cores


@dataclass
class Outcome:
    """The minutes of a run."""

    healthy: int
    minutes: list[Minute] = field(default_factory=list)

    @property
    def worst_age_s(self) -> float:
        """The greatest age of any healthy target's newest reading, in the whole run."""
        return max(minute.worst_age_s for minute in self.minutes)

    @property
    def growth(self) -> float:
        """By what share the streamer's memory grew after the warm-up; 0 where the run was no longer than that."""
        later = self.minutes[WARM_UP_MINUTES:]
        return later[-1].rss_mib / later[0].rss_mib - 1 if later else 0.0

    @property
    def good(self) -> bool:
        """Fresh and flat."""
        return self.worst_age_s <= OLDEST_ALLOWED_S and self.growth <= WANDER

    def __str__(self) -> str:
        return (
            f"{self.healthy} healthy targets; oldest data {self.worst_age_s:.2f} s (at most {OLDEST_ALLOWED_S:g}); "
            f"memory after the warm-up {self.growth:+.1%} (at most {WANDER:+.0%})\n{'good' if self.good else 'BAD'}"
        )


class Watch:
    """Reads the log and keeps the time of the newest reading of each GPU."""

    def __init__(self) -> None:
        self.newest_ns: dict[str, int] = {}
        self.readings = 0

    async def run(self, port: int) -> None:
        """Read until cancelled."""
        client = await BrokerClient.connect("127.0.0.1", port, client="watch")
        try:
            await client.subscribe("watch", -1)
            while True:
                for item in await client.receive():
                    if isinstance(item, Gap):
                        raise RuntimeError(f"the log has a gap: {item}")
                    block = decode(item.payload).block
                    self.readings += block.count()
                    for index, time_ns, _ in block.points:
                        uuid = block.gpus[index].uuid
                        self.newest_ns[uuid] = max(time_ns, self.newest_ns.get(uuid, 0))
        finally:
            await client.close()

    def oldest_s(self) -> float:
        """The age of the newest reading of the GPU that was heard of least lately."""
        return (time.time_ns() - min(self.newest_ns.values())) / SECOND


async def run(
    state_dir: Path,
    *,
    targets: int = 500,
    gpus_per_host: int = 1,
    bad_share: float = 0.05,
    minutes: int = 10,
    minute_s: float = 60.0,
) -> Outcome:
    """Scrape them for so many minutes (of ``minute_s`` seconds); a twentieth of the targets hangs, another answers nonsense."""
    bad = max(1, round(targets * bad_share))
    listed = state_dir / "targets.txt"
    fleet = Fleet(
        state_dir,
        SOURCE="dcgm",
        TARGETS=listed,
        SCRAPE_INTERVAL="1s",
        SCRAPE_TIMEOUT="5s",
        COLLECT_INTERVAL="1s",
        FSYNC="interval",
        RETENTION_BYTES="256MiB",
    )
    exporters = Service(
        "exporters",
        fleet,
        *("fakeexporter", "--port", "0", "--hosts", str(targets), "--gpus-per-host", str(gpus_per_host)),
        *("--hanging", str(bad), "--garbage", str(bad), "--list", str(listed)),
    )
    outcome = Outcome(targets - 2 * bad)
    watch = Watch()
    try:
        exporters.start()
        fleet.broker.start()
        await asyncio.to_thread(wait_until, listed.exists, "the exporters")
        await asyncio.to_thread(fleet.broker.wait_for, "listening")
        watching = asyncio.create_task(watch.run(fleet.port))
        fleet.streamer.start()
        while len(watch.newest_ns) < outcome.healthy * gpus_per_host:
            if watching.done():
                watching.result()
            await asyncio.sleep(LOOK_SECONDS)
        for number in range(minutes):
            seen = await _minute(watch, minute_s, fleet, exporters)
            outcome.minutes.append(seen)
            logger.info(
                "minute %d: oldest data %.2f s; %d readings; streamer %.1f MiB (%.1f anonymous); broker %.1f MiB; "
                "cores: streamer %.2f, broker %.2f, exporters %.2f; load %.1f",
                number + 1, seen.worst_age_s, seen.readings, seen.rss_mib, seen.anonymous_mib, seen.broker_rss_mib,
                *seen.cpus, os.getloadavg()[0],
            )  # fmt: skip
        watching.cancel()
    finally:
        for service in (*fleet.services, exporters):
            service.kill()
    return outcome


async def _minute(watch: Watch, seconds: float, fleet: Fleet, exporters: Service) -> Minute:
    services = (fleet.streamer, fleet.broker, exporters)
    began = [service.cpu_seconds() for service in services]
    ends = time.monotonic() + seconds
    before = watch.readings
    worst = 0.0
    while time.monotonic() < ends:
        await asyncio.sleep(LOOK_SECONDS)
        worst = max(worst, watch.oldest_s())
    streamer = fleet.streamer
    return Minute(
        worst,
        streamer.memory_mib(),
        streamer.memory_mib("RssAnon"),
        fleet.broker.memory_mib(),
        watch.readings - before,
        tuple((service.cpu_seconds() - then) / seconds for service, then in zip(services, began, strict=True)),  # type: ignore[arg-type]
    )


def main() -> int:
    """Run, print the figures; exit status 0 when all is good."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--targets", type=int, default=500)
    parser.add_argument("--gpus-per-host", type=int, default=1)
    parser.add_argument("--minutes", type=int, default=10)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with tempfile.TemporaryDirectory(prefix="many-targets-") as folder:
        outcome = asyncio.run(
            run(
                Path(folder),
                targets=options.targets,
                gpus_per_host=options.gpus_per_host,
                minutes=options.minutes,
            )
        )
    sys.stdout.write(f"{outcome}\n")
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
