"""Kill and compare: services are killed, or lose a partner, while readings flow; then what arrived is compared with what was sent.

    python -m tests.ingest.kills SCENARIO [--rounds N …]    # --help lists the scenarios, SCENARIO --help its sizes

All are real processes. Rows 19 to 21 of the broker's fault matrix (docs/broker-log.md) are collector, influxd and spool.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import inspect
import json
import logging
import random
import re
import signal
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bench.make_capture import make_capture
from broker.client.client import BrokerClient, Gap, fetch_stats
from broker.log.record import key_of
from ingest.simulator.capture import CaptureShape
from ingest.simulator.capture import write_capture as write_synthetic
from ingest.streamer.spool import Spool
from readings.batch import decode
from readings.times import SECOND, format_time, parse_time
from stores.base import Store
from stores.influxdb import InfluxStore
from stores.sqlite import SqliteStore
from telemetry_site.options import SPOOL_BYTES
from tests.influxd import Influxd, find_binary
from tests.ingest.captures import METRICS, START, Reading, read_log, readings_in, readings_of, stored_readings, uuid_of
from tests.ingest.processes import Fleet, Service, all_committed, wait_until
from tests.ports import free_port
from tests.stand_in import standing_in

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=Hashable)


@dataclass
class Run:
    """One run of a scenario: what it needs, what it counted, and which promises did not hold."""

    folder: Path
    chance: random.Random
    cleanup: ExitStack
    figures: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value}" for name, value in self.figures.items())
        return f"{figures}: {'BAD: ' + '; '.join(self.problems) if self.problems else 'good'}"

    def check(self, held: bool, otherwise: str) -> None:
        """A promise: where it did not hold, ``otherwise`` is a problem."""
        if not held:
            self.problems.append(otherwise)

    def compare(self, expected: set[T], found: Iterable[T]) -> None:
        """Every expected one has to be found, once, and nothing else."""
        counts = Counter(found)
        figures = {
            "expected": len(expected),
            "found": counts.total(),
            "lost": len(expected - counts.keys()),
            "foreign": len(counts.keys() - expected),
            "twice": counts.total() - len(counts),
        }
        self.figures |= figures
        for name in ("lost", "foreign", "twice"):
            self.check(not figures[name], f"{figures[name]} {name}")

    def compare_order(self, readings: Iterable[Reading]) -> None:
        """Readings as they stand in the log: each once, and those of a series in the order of their times."""
        seen: set[tuple[str, str, int]] = set()
        newest: dict[tuple[str, str], int] = {}
        in_log = out_of_order = longest_gap = 0
        for uuid, metric, time_ns, _ in readings:
            in_log += 1
            seen.add((uuid, metric, time_ns))
            before = newest.get((uuid, metric), time_ns)
            out_of_order += time_ns < before
            longest_gap = max(longest_gap, time_ns - before)
            newest[uuid, metric] = time_ns
        self.figures |= {
            "in_log": in_log,
            "twice_in_log": in_log - len(seen),
            "out_of_order": out_of_order,
            "longest_gap_s": longest_gap / SECOND,
        }
        self.check(in_log == len(seen), f"{in_log - len(seen)} twice in the log")
        self.check(not out_of_order, f"{out_of_order} out of order")

    def fleet(self, **settings: object) -> Fleet:
        """Broker, collector and streamer, which end with the run."""
        fleet = Fleet(self.folder / "state", **settings)
        self.cleanup.callback(fleet.kill_all)
        fleet.migrate()
        return fleet

    def exporters(self, fleet: Fleet, targets: Path, *arguments: object) -> Service:
        """Fake exporters that answer; their URLs are in ``targets``."""
        words = ("fakeexporter", "--port", "0", "--list", targets, *arguments)
        exporters = Service("exporters", fleet, *map(str, words))
        self.cleanup.callback(exporters.kill)
        exporters.start()
        wait_until(targets.exists, "the exporters")
        return exporters

    def influxd(self) -> Influxd:
        """An InfluxDB that answers."""
        server = Influxd(find_binary(), self.folder / "influxd")
        self.cleanup.callback(server.stop)
        server.start()
        return server

    def stored(self, store: Store) -> list[Reading]:
        """All that a store holds; closes it."""
        try:
            return stored_readings(store)
        finally:
            store.close()

    def stop(self, *services: Service) -> None:
        """SIGTERM, which each service has to follow with status 0."""
        for service in services:
            status, _ = service.stop()
            self.check(status == 0, f"the {service.name} ended with {status}")


def every_part(run: Run, *, capture: Path = Path("build/soak.csv"), rounds: int = 10, pause: float = 2.5) -> None:
    """Kill broker, collector and streamer once a round, in random order, while a capture streams."""
    expected = readings_in(capture)
    shortest = 0.2  # seconds from one kill to the next, ``pause`` at most: services are killed while they start, too
    # The kills take about this long, and what is unanswered at each is read again.
    rate = max(1.0, len(expected) / (rounds * 3 * (shortest + pause) / 2 + 2))
    fleet = run.fleet(CSV_PATH=capture, RATE=f"{rate:.3f}", BATCH_SIZE=20)
    kills: Counter[str] = Counter()
    for service in fleet.services:
        service.start()
    fleet.streamer.wait_for("streaming ")
    for number in range(rounds):
        for service in run.chance.sample(fleet.services, 3):
            time.sleep(run.chance.uniform(shortest, pause))
            if service.returncode == 0:
                # The streamer came to the end: once more from the start, which changes nothing in the store.
                service.start()
                time.sleep(shortest)
            if service.returncode is not None:
                raise RuntimeError(f"{service.name} ended by itself with {service.returncode}: {service.log[-2000:]}")
            service.kill()
            kills[service.name] += 1
            service.start()
        logger.info("round %d of %d done", number + 1, rounds)
    run.check(fleet.streamer.wait(600) == 0, f"the streamer ended with {fleet.streamer.returncode}")
    wait_until(lambda: all_committed(fleet), "the collector to commit all", 120)
    run.figures |= {"kills": kills, "messages": _messages(fleet)}
    run.stop(fleet.collector, fleet.broker)
    run.compare(expected, run.stored(SqliteStore(fleet.state_dir / "readings.sqlite3")))


def streamer(
    run: Run, *, capture: Path = Path("build/soak.csv"), rows: int = 0, rounds: int = 10, messages: int = 900
) -> None:
    """Kill a streamer at full speed, each time before it has sent ``messages``. ``rows``: of a capture made from this one.

    What was unanswered, or answered and not yet saved, is sent again: the log may hold it twice, the store must not.
    """
    if rows:
        make_capture(capture, run.folder / "big.csv", rows)
        capture = run.folder / "big.csv"
    # A hash of 64 bits for a reading: two millions of them are to fit.
    with capture.open(newline="") as file:
        expected = {
            hash((row["uuid"], row["metric_name"], parse_time(row["timestamp"]), float(row["value"])))
            for row in csv.DictReader(file)
        }
    fleet = run.fleet(CSV_PATH=capture)
    fleet.broker.start()
    fleet.broker.wait_for("listening")
    kills = 0
    for _ in range(rounds):
        target = _messages(fleet) + run.chance.randrange(1, messages)
        fleet.streamer.start()
        while _messages(fleet) < target and fleet.streamer.returncode is None:
            time.sleep(0.002)
        kills += fleet.streamer.returncode is None
        fleet.streamer.kill()
    fleet.streamer.start()
    run.check(fleet.streamer.wait(600) == 0, f"the streamer ended with {fleet.streamer.returncode}")
    found = Counter(
        hash(reading)
        for message in asyncio.run(read_log(fleet.port))
        for reading in readings_of([decode(message.payload).block])
    )
    fleet.collector.start()
    wait_until(lambda: all_committed(fleet), "the collector to commit all", 600)
    fleet.collector.stop()
    store = SqliteStore(fleet.state_dir / "readings.sqlite3")
    stored = store.stats().readings or 0
    store.close()
    run.figures |= {"kills": kills, "sent_again": found.total() - len(expected)}
    run.compare(expected, found.keys())
    run.figures |= {"rows": len(expected), "stored": stored}
    run.check(kills == rounds, "the capture came to its end before the last kill")
    run.check(stored == len(expected), "the store does not hold each row once")


def broker_away(run: Run, *, seconds: float = 60.0, targets: int = 20, before: int = 3000) -> None:
    """Take the broker away in a live scrape, once ``before`` readings are sent: the spool fills and empties, all comes in order."""
    port, listed = free_port(), run.folder / "targets.txt"
    fleet = run.fleet(SOURCE="dcgm", TARGETS=listed, SCRAPE_INTERVAL="1s", COLLECT_INTERVAL="1s", SPOOL_BYTES="256MiB")
    run.exporters(fleet, listed, "--hosts", targets, "--gpus-per-host", 2)
    fleet.broker.start()
    fleet.collector.start()
    fleet.streamer.start("--metrics-addr", f"127.0.0.1:{port}")
    fleet.streamer.wait_for("streaming ")
    wait_until(lambda: _figure(port, "readings_sent_total") >= before, "the first readings")
    fleet.broker.kill()
    ends = time.monotonic() + seconds
    most_waiting = most_bytes = 0
    while time.monotonic() < ends:
        time.sleep(0.2)
        most_waiting = max(most_waiting, int(_figure(port, "batches_waiting")))
        most_bytes = max(most_bytes, int(_figure(port, "spool_bytes")))
    fleet.broker.start()
    fleet.broker.wait_for("listening on")
    back = time.monotonic()
    # While it scrapes there is always a batch on its way: few are left is what an emptied spool looks like.
    wait_until(lambda: _figure(port, "behind_seconds") < 2, "the spool to be emptied", 300)
    run.figures |= {
        "most_waiting": most_waiting,
        "most_spool_bytes": most_bytes,
        "emptied_s": round(time.monotonic() - back, 1),
    }
    fleet.streamer.signal(signal.SIGTERM)
    fleet.streamer.wait()
    wait_until(lambda: all_committed(fleet), "the collector to commit all", 120)
    fleet.collector.stop()
    read, sent = map(int, re.findall(r"stopped: (\d+) readings read; (\d+) sent .*", fleet.streamer.log)[-1])
    run.compare_order(readings_of(decode(each.payload).block for each in asyncio.run(read_log(fleet.port))))
    fleet.broker.stop()
    stored = len(set(run.stored(SqliteStore(fleet.state_dir / "readings.sqlite3"))))
    run.figures |= {"read": read, "sent": sent, "stored": stored}
    run.check(read == sent == run.figures["in_log"] == stored, "read, sent, logged and stored are not the same number")
    run.check(most_waiting > 0, "the spool had nothing to do")
    run.check("the spool keeps" not in fleet.streamer.log, "batches are left in the spool")


# The first minutes fill caches and connections; from then on memory may wander by so much, and no more.
WARM_UP_MINUTES, WANDER = 2, 0.05
OLDEST_ALLOWED_S = 3.0


class Minute(NamedTuple):
    """The greatest age of any healthy target's newest reading in a minute, and the streamer's memory at its end."""

    worst_age_s: float
    rss_mib: float
    anonymous_mib: float = 0.0
    broker_rss_mib: float = 0.0
    readings: int = 0
    cpus: Sequence[float] = ()  # of streamer, broker and exporters, in cores


def check_minutes(run: Run, minutes: list[Minute]) -> None:
    """Readings stay fresh, and memory stays flat after the warm-up."""
    later = minutes[WARM_UP_MINUTES:]
    growth = later[-1].rss_mib / later[0].rss_mib - 1 if later else 0.0
    worst = max(minute.worst_age_s for minute in minutes)
    run.figures |= {"minutes": minutes, "oldest_data_s": round(worst, 2), "growth": f"{growth:+.1%}"}
    run.check(worst <= OLDEST_ALLOWED_S, f"data of {worst:.2f} s ago")
    run.check(growth <= WANDER, f"memory grew by {growth:.1%}")


def bad_targets(
    run: Run, *, targets: int = 500, gpus: int = 1, bad_share: float = 0.05, minutes: int = 10, minute: float = 60.0
) -> None:
    """Some exporters hang, as many answer nonsense: the others' readings stay fresh at the log's far end, and memory stays flat."""
    bad = max(1, round(targets * bad_share))
    healthy = targets - 2 * bad
    listed = run.folder / "targets.txt"
    fleet = run.fleet(
        SOURCE="dcgm", TARGETS=listed, SCRAPE_INTERVAL="1s", SCRAPE_TIMEOUT="5s", COLLECT_INTERVAL="1s",
        FSYNC="interval", RETENTION_BYTES="256MiB",
    )  # fmt: skip
    words = ("--hosts", targets, "--gpus-per-host", gpus, "--hanging", bad, "--garbage", bad)
    services = (fleet.streamer, fleet.broker, run.exporters(fleet, listed, *words))
    fleet.broker.start()
    fleet.broker.wait_for("listening")
    newest_ns: dict[str, int] = {}
    readings = 0

    async def follow() -> None:
        nonlocal readings
        client = await BrokerClient.connect("127.0.0.1", fleet.port)
        try:
            await client.subscribe("follow", -1)
            while True:
                for item in await client.receive():
                    assert not isinstance(item, Gap), f"the log has a gap: {item}"
                    block = decode(item.payload).block
                    readings += block.count()
                    for index, time_ns, _ in block.points:
                        uuid = block.gpus[index].uuid
                        newest_ns[uuid] = max(time_ns, newest_ns.get(uuid, 0))
        finally:
            await client.close()

    async def watch() -> list[Minute]:
        following = asyncio.create_task(follow())
        fleet.streamer.start()
        while len(newest_ns) < healthy * gpus:
            if following.done():
                following.result()
            await asyncio.sleep(0.25)
        seen: list[Minute] = []
        for _ in range(minutes):
            began = [service.cpu_seconds() for service in services]
            ends, before, worst = time.monotonic() + minute, readings, 0.0
            while time.monotonic() < ends:
                await asyncio.sleep(0.25)
                worst = max(worst, (time.time_ns() - min(newest_ns.values())) / SECOND)
            cpus = [round((each.cpu_seconds() - then) / minute, 2) for each, then in zip(services, began, strict=True)]
            memory = (fleet.streamer.memory_mib(), fleet.streamer.memory_mib("RssAnon"), fleet.broker.memory_mib())
            seen.append(Minute(worst, *memory, readings - before, cpus))
            logger.info("%s", seen[-1])
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        return seen

    run.figures["healthy"] = healthy
    check_minutes(run, asyncio.run(watch()))


SpooledBatch = tuple[str, int, bytes]  # producer's key, number, payload


def spool(run: Run, *, away: float = 300.0, rounds: int = 5, spool_bytes: str = "1GiB", hosts: int = 32) -> None:
    """Row 21: kill a live streamer while there is no broker, and tear its spool's end: what is spooled arrives once, in order."""
    limit = SPOOL_BYTES.parse(spool_bytes)
    fleet = run.fleet(
        SOURCE="simulate", SIM_HOSTS=hosts, SIM_GPUS_PER_HOST=8, SCRAPE_INTERVAL="500ms", SPOOL_BYTES=spool_bytes,
        INSTANCE_ID="s1",
    )  # fmt: skip
    folder = fleet.state_dir / "spool" / "s1"
    largest = torn = 0

    def size() -> int:
        while True:
            segments = sorted(folder.glob("*.log"))
            try:
                total = sum(path.stat().st_size for path in segments)
            except FileNotFoundError:
                continue
            if sorted(folder.glob("*.log")) == segments:  # none came or went meanwhile
                return total

    for number in range(rounds + 1):
        fleet.streamer.start()
        fleet.streamer.wait_for("streaming ")
        ends = time.monotonic() + away / (rounds + 1) * run.chance.uniform(0.8, 1.2)
        while time.monotonic() < ends or (not number and not size()):
            largest = max(largest, size())
            time.sleep(0.05)
        fleet.streamer.kill()
        if run.chance.random() < 0.5:  # half a record at the end of the newest segment, as a loss of power leaves it
            torn += 1
            with max(folder.glob("*.log")).open("ab") as file:
                file.write((5000).to_bytes(4, "big") + b'{"type":"message","crc":"' + bytes(run.chance.randrange(100)))
    kept = Spool(folder, limit)
    spooled: list[SpooledBatch] = []
    batches, after = kept.read(0)
    while batches:
        spooled += [(key_of(batch.producer), batch.number, batch.payload) for batch in batches]
        batches, after = kept.read(after)
    kept.close()
    fleet.broker.start()
    fleet.broker.wait_for("listening on")
    fleet.streamer.start()
    wait_until(lambda: _messages(fleet) > len(spooled) + 5, "the spool's batches and fresh ones", 120)
    largest = max(largest, size())
    run.stop(fleet.streamer)
    arrived: list[SpooledBatch] = []
    for message in asyncio.run(read_log(fleet.port)):
        producer, _, digits = message.message_id.partition(":")
        arrived.append((producer, int(digits), bytes(message.payload)))
    rest = Spool(folder, limit)
    left = rest.waiting
    rest.close()
    given_up = sum(int(count) for count in re.findall(r"gave up the oldest (\d+) batches", fleet.streamer.log))
    numbers = [each for _, each, _ in arrived]
    run.figures |= {"kills": rounds + 1, "torn": torn, "spooled": len(spooled), "arrived": len(arrived)}
    run.figures |= {"given_up": given_up, "spool_bytes": largest, "limit": limit, "left": left}
    run.check(bool(spooled), "nothing was spooled")
    run.check(set(spooled) <= set(arrived), "spooled batches are missing")
    run.check(all(a < b for a, b in pairwise(numbers)), "batches came twice or out of order")
    run.check(all(b == a + 1 for a, b in pairwise(numbers)) and bool(numbers), "batches are missing between")
    run.check(numbers[:1] == [each for _, each, _ in spooled[:1]], "what was given up came")
    run.check(largest <= limit, "the spool grew past its bound")
    run.check(left == 0, "batches are left in the spool")


MOMENTS = ("asked", "done", "told")
BATCHES, GPUS = 3, 10  # of a round


def collector(run: Run, *, rounds: int = 50) -> None:
    """Row 19: kill the collector at a write to InfluxDB: before the server has it, before it has said so, around the commit."""
    server = run.influxd()
    door = run.cleanup.enter_context(standing_in(server.port))
    config = replace(server.config(), url=door.url)
    fleet = run.fleet(
        STORAGE_TYPE="influxdb", INFLUXDB_URL=door.url, INFLUXDB_TOKEN=config.token, INFLUXDB_ORG=config.org,
        INFLUXDB_BUCKET=config.bucket, FLUSH_INTERVAL="20ms",
    )  # fmt: skip
    kills: Counter[str] = Counter()
    wanted, skip = "", 0

    def at(moment: str) -> None:
        nonlocal wanted, skip
        if moment != wanted:
            return
        if skip:
            skip -= 1
            return
        wanted = ""
        if moment == "told":
            time.sleep(run.chance.uniform(0, 0.01))  # before, in or after the commit
        fleet.collector.kill()
        kills[moment] += 1

    door.hook = at
    fleet.broker.start()
    fleet.broker.wait_for("listening on")
    published: set[Reading] = set()
    for number in range(rounds):
        skip, wanted = run.chance.randrange(2), MOMENTS[number % 3]
        fleet.collector.start()
        fleet.collector.wait_for("subscribed as")
        asyncio.run(_publish(fleet.port, number, published))
        wait_until(lambda: fleet.collector.returncode is not None, "the collector's end", 60)
    fleet.collector.start()
    wait_until(lambda: all_committed(fleet), "the collector to commit all", 120)
    run.stop(fleet.collector)
    points = len({reading[::2] for reading in published})
    run.figures |= {
        "kills": kills,
        "lines_sent_again": max(0, sum(len(seen.lines) for seen in door.seen) - points),
    }
    run.compare(published, run.stored(InfluxStore(config)))


async def _publish(port: int, number: int, published: set[Reading]) -> None:
    """Some batches, apart, so that there is more than one write."""
    client = await BrokerClient.connect("127.0.0.1", port)
    for each in range(BATCHES):
        at = parse_time(START) + (number * BATCHES + each) * SECOND
        rows: list[Reading] = [
            (uuid_of(gpu), metric, at, float(10 + (gpu + each) % 50)) for gpu in range(GPUS) for metric in METRICS
        ]
        published.update(rows)
        metrics = [
            {"timestamp": format_time(time_ns), "metric_name": metric, "gpu_id": 0, "device": "nvidia0", "uuid": uuid,
             "model_name": "NVIDIA H100 80GB HBM3", "hostname": "host-00", "value": value}
            for uuid, metric, time_ns, value in rows
        ]  # fmt: skip
        batch = {"batch_id": f"{number}-{each}", "source": "kills", "collected_at": format_time(at), "metrics": metrics}
        await client.publish(json.dumps(batch).encode(), producer="00000000000000cc", sequence=number * BATCHES + each)
        await asyncio.sleep(0.1)
    await client.close()


def influxd(
    run: Run, *, readings: int = 500_000, rounds: int = 5, rate: int = 20_000, gpus: int = 256, away: float = 0.0
) -> None:
    """Row 20: kill influxd while a capture streams at ``rate`` readings a second. ``away``: seconds each time, 0 for a moment."""
    bucket = "kill"
    hosts = max(1, gpus // 8)
    capture = run.folder / "capture.csv"
    in_capture = write_synthetic(capture, CaptureShape(hosts, 8, -(-readings // (hosts * 8 * 10)), 5))
    server = run.influxd()
    fleet = run.fleet(
        STORAGE_TYPE="influxdb", INFLUXDB_URL=server.url, INFLUXDB_TOKEN=server.token, INFLUXDB_ORG=server.org,
        INFLUXDB_BUCKET=bucket, CSV_PATH=capture, BATCH_SIZE=1000, RATE=rate,
    )  # fmt: skip

    def counted() -> int:
        names = [name for name, kind in server.query(bucket, 'SHOW FIELD KEYS FROM "gpu"') if kind == "float"]
        counts = ", ".join(f'count("{name}")' for name in names)
        rows = server.query(bucket, f'SELECT {counts} FROM "gpu"') if names else []
        return sum(count or 0 for row in rows for count in row[1:])

    def lag() -> int:
        subscribers = fetch_stats("127.0.0.1", fleet.port)["subscribers"]
        return next((int(one["lag"]) for one in subscribers if one["id"] == "collector-1"), 0)

    most_lag = 0
    for service, said in ((fleet.broker, "listening on"), (fleet.collector, "subscribed as")):
        service.start()
        service.wait_for(said)
    fleet.streamer.start()
    for number in range(rounds):
        wanted = in_capture * (number + 1) // (rounds + 1)
        wait_until(lambda wanted=wanted: counted() >= wanted, "readings on the server")  # type: ignore[misc]
        time.sleep(run.chance.uniform(0.0, 0.5))  # anywhere in a write
        server.kill()
        ends = time.monotonic() + (away or run.chance.uniform(0.2, 1.5))
        while (left := ends - time.monotonic()) > 0:
            most_lag = max(most_lag, lag())
            time.sleep(min(left, 0.5))
        server.start()
    if fleet.streamer.wait(300) != 0:
        raise RuntimeError(fleet.streamer.log[-2000:])
    wait_until(lambda: all_committed(fleet) or fleet.collector.returncode is not None, "the last commit")
    peak, last_lag = fleet.collector.peak_mib(), lag()
    fleet.collector.stop()
    points = server.query(bucket, 'SELECT count("pod") FROM "gpu"')
    run.figures |= {"in_capture": in_capture, "counted": counted(), "points": int(points[0][1]) if points else 0}
    run.figures |= {"series": len(server.query(bucket, "SHOW SERIES")), "kills": rounds, "most_lag": most_lag}
    run.figures |= {"last_lag": last_lag, "collector_peak_mib": round(peak)}
    run.check(run.figures["counted"] == in_capture, "the server does not hold each reading once")
    run.check(last_lag == 0, "the collector is behind")
    # Each outage is logged once when it begins and once when it ends.
    lines = [line for line in fleet.collector.log.splitlines() if "telemetry_site.outage" in line]
    run.check(len(lines) <= 2 * rounds, "outages are logged more than once")
    run.check(2 * sum("is back after" in line for line in lines) == len(lines), "an outage is not logged in pairs")


SCENARIOS: dict[str, Callable[..., None]] = {
    "all": every_part,
    "streamer": streamer,
    "broker-away": broker_away,
    "targets": bad_targets,
    "spool": spool,
    "collector": collector,
    "influxd": influxd,
}


def play(scenario: str, folder: Path, seed: int, **sizes: object) -> Run:
    """Run one scenario."""
    began = time.monotonic()
    with ExitStack() as cleanup:
        run = Run(folder, random.Random(seed), cleanup)
        SCENARIOS[scenario](run, **sizes)
    run.figures["seconds"] = round(time.monotonic() - began)
    return run


def _messages(fleet: Fleet) -> int:
    return int(fetch_stats("127.0.0.1", fleet.port)["total_messages"])


def _figure(port: int, name: str) -> float:
    """One of the streamer's own figures."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found = re.search(rf"^gpu_telemetry_streamer_{name} (\S+)$", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/metrics has no {name}")
    return float(found[1])


def main() -> int:
    """Run a scenario and print its figures; exit status 0 when all promises held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="scenario", required=True)
    for name, scenario in SCENARIOS.items():
        command = commands.add_parser(name, help=(scenario.__doc__ or "").splitlines()[0], description=scenario.__doc__)
        command.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
        for size in list(inspect.signature(scenario).parameters.values())[1:]:
            flag = "--" + size.name.replace("_", "-")
            command.add_argument(flag, type=type(size.default), default=size.default, help="[%(default)s]")
    options = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        run = play(options.pop("scenario"), Path(folder), seed := options.pop("seed"), **options)
    sys.stdout.write(f"seed {seed}: {run}\n")
    return 1 if run.problems else 0


if __name__ == "__main__":
    sys.exit(main())
