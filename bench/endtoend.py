"""From a capture on disk to a store that has all of it: this pipeline beside Telegraf and beside the server's own limit.

    python -m bench.endtoend capture.csv                                  # 2,000,000 rows made from this one
    python -m bench.endtoend capture.csv --telegraf ~/bin/telegraf        # with the peer
    python -m bench.endtoend capture.csv --roads defaults sqlite --rounds 1
    python -m bench.endtoend --docs                                       # writes the last figures into docs/performance.md

The roads run in turn, round by round, each into a new bucket of one InfluxDB (or a new SQLite file):

- ceiling: the same points as ready-made lines, posted by a plain HTTP client. No pipeline can be faster;
- defaults: broker, collector and streamer as processes, with default settings;
- backfill: the same with BATCH_SIZE=5000 and FLUSH_INTERVAL=1s;
- no-rollups: backfill with ROLLUPS=false. What it saves is what roll-ups cost; only when it is named;
- telegraf: inputs.file with the csv parser and typed columns, outputs.influxdb_v2, ``--once``;
- sqlite: the defaults, into the embedded store.

A run begins when the streamer (or Telegraf) is started, and ends when the collector has committed the last offset (or Telegraf has
ended). Only then is the server asked, once, how many readings it has: counting while it writes costs it half its time. CPU time is that of
each process during the run.
"""

from __future__ import annotations

import argparse
import gzip
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from bench.capture import cpu_seconds
from bench.make_capture import make_capture
from bench.plot import Axis, Line, save_chart
from bench.report import IMAGES, described, load, put_section, save, table
from ingest.capture.source import CsvSource
from readings.blocks import blocks as blocks_of
from readings.columns import Columns
from stores.influxdb import InfluxStore
from stores.influxdb.client import InfluxConfig
from stores.influxdb.line_protocol import LineBuilder, render
from stores.influxdb.writer import requests_of
from stores.sqlite import SqliteStore
from tests.influxd import Influxd, find_binary
from tests.ingest.processes import Fleet, Service, all_committed

ROADS = ("ceiling", "defaults", "backfill", "telegraf", "sqlite")
BACKFILL = {"BATCH_SIZE": "5000", "FLUSH_INTERVAL": "1s"}
# Roads of our own into InfluxDB, and what they set.
SETTINGS = {"defaults": {}, "backfill": BACKFILL, "no-rollups": {**BACKFILL, "ROLLUPS": "false"}}
LONGEST_SECONDS = 600.0

TELEGRAF = """
[agent]
  omit_hostname = true
  metric_batch_size = 5000
  metric_buffer_limit = {rows}
[[inputs.file]]
  files = ["{capture}"]
  data_format = "csv"
  csv_header_row_count = 1
  csv_measurement_column = "metric_name"
  csv_column_names = ["timestamp", "metric_name", "gpu_id", "device", "uuid", "modelName", "Hostname", "container", "pod", "namespace", "value", "labels_raw"]
  csv_column_types = ["string", "string", "string", "string", "string", "string", "string", "string", "string", "string", "float", "string"]
  csv_tag_columns = ["gpu_id", "device", "uuid", "modelName", "Hostname"]
  csv_timestamp_column = "timestamp"
  csv_timestamp_format = "2006-01-02T15:04:05Z07:00"
  fieldinclude = ["value"]
[[outputs.influxdb_v2]]
  urls = ["{url}"]
  token = "{token}"
  organization = "{org}"
  bucket = "{bucket}"
"""


@dataclass(slots=True)
class Run:
    """One run of a road. Seconds; ``peak_mib`` and ``cpu`` by process."""

    readings: int
    seconds: float
    cpu: dict[str, float] = field(default_factory=dict)
    peak_mib: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Readings a second."""
        return self.readings / self.seconds


def children_cpu() -> float:
    """User and system time of all children that have ended and were waited for, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def columns_of(capture: Path) -> Iterator[list[Columns]]:
    """The capture as the streamer gathers it."""
    source = CsvSource(str(capture), needs_timestamp=True)
    parts: list[Columns] = []
    while True:
        chunk = source.read()
        parts.append(chunk.columns)
        if chunk.done or sum(part.size for part in parts) >= 50_000:
            yield parts
            parts = []
        if chunk.done:
            source.close()
            return


def ready_lines(capture: Path) -> list[bytes]:
    """The bodies of requests with all points, as the store writes them."""
    lines = LineBuilder()
    bodies = []
    for parts in columns_of(capture):
        tables = lines.tables(list(blocks_of(parts, 5_000)))
        bodies += [gzip.compress(render(request), 1) for request in requests_of(tables)]
    return bodies


class Bench:
    """One InfluxDB, one capture of ``rows`` readings, and the roads."""

    def __init__(self, server: Influxd, capture: Path, rows: int, folder: Path, telegraf: str) -> None:
        self._server = server
        self._capture = capture
        self._rows = rows
        self._folder = folder
        self._telegraf = telegraf
        self._runs = 0
        self._bodies: list[bytes] = []

    def run(self, road: str) -> Run:
        """One run. Raises RuntimeError if readings are missing at its end."""
        self._runs += 1
        if road == "sqlite":
            return self._pipeline({})
        config = self._server.config()
        store = InfluxStore(config)
        store.ping()  # makes the bucket
        store.close()
        if road == "ceiling":
            run = self._ceiling(config)
        elif road == "telegraf":
            run = self._peer(config)
        else:
            run = self._pipeline(SETTINGS[road], config)
        self._check(self._count(config))
        self._server.ask("DELETE", f"/api/v2/buckets/{self._bucket_id(config)}")
        return run

    def _check(self, stored: int) -> None:
        if stored != self._rows:
            raise RuntimeError(f"{stored:,} readings are stored, not {self._rows:,}")

    def _bucket_id(self, config: InfluxConfig) -> str:
        found: str = self._server.ask("GET", f"/api/v2/buckets?name={config.bucket}")["buckets"][0]["id"]
        return found

    def _count(self, config: InfluxConfig) -> int:
        """The readings that the server has: points of all fields that are numbers."""
        fields = {name for name, kind in self._server.query(config.bucket, "SHOW FIELD KEYS") if kind == "float"}
        counts = ", ".join(f'count("{name}")' for name in sorted(fields))
        rows = self._server.query(config.bucket, f"SELECT {counts} FROM /.*/")
        return sum(int(each or 0) for row in rows for each in row[1:])

    def _ceiling(self, config: InfluxConfig) -> Run:
        if not self._bodies:
            self._bodies = ready_lines(self._capture)
        pool = urllib3.PoolManager()
        url = f"{config.url}/api/v2/write?org={config.org}&bucket={config.bucket}&precision=ns"
        headers = {"Authorization": f"Token {config.token}", "Content-Encoding": "gzip"}
        server = self._server_cpu()
        began = time.monotonic()
        for body in self._bodies:
            answer = pool.request("POST", url, body=body, headers=headers)
            if answer.status != 204:
                raise RuntimeError(answer.data)
        seconds = time.monotonic() - began
        return Run(self._rows, seconds, {"influxd": self._server_cpu() - server})

    def _server_cpu(self) -> float:
        assert self._server.process is not None
        return cpu_seconds(self._server.process.pid)

    def _peer(self, config: InfluxConfig) -> Run:
        settings = self._folder / "telegraf.conf"
        settings.write_text(
            TELEGRAF.format(
                rows=2 * self._rows,
                capture=self._capture,
                url=config.url,
                token=config.token,
                org=config.org,
                bucket=config.bucket,
            )
        )
        server, before = self._server_cpu(), children_cpu()
        began = time.monotonic()
        peer = subprocess.Popen([self._telegraf, "--config", str(settings), "--once", "--quiet"])
        peak = 0.0
        while peer.poll() is None:
            peak = max(peak, _peak_mib(peer.pid))
            time.sleep(0.1)
        seconds = time.monotonic() - began
        if peer.returncode:
            raise RuntimeError(f"telegraf ended with {peer.returncode}")
        cpu = {"telegraf": children_cpu() - before, "influxd": self._server_cpu() - server}
        return Run(self._rows, seconds, cpu, {"telegraf": peak})

    def _pipeline(self, extra: dict[str, str], config: InfluxConfig | None = None) -> Run:
        settings = {"TIMESTAMPS": "source", "RETENTION_PERIOD": "0", "CSV_PATH": str(self._capture), "VERBOSITY": "1"}
        if config is not None:
            settings |= {
                "STORAGE_TYPE": "influxdb",
                "INFLUXDB_URL": config.url,
                "INFLUXDB_TOKEN": config.token,
                "INFLUXDB_ORG": config.org,
                "INFLUXDB_BUCKET": config.bucket,
            }
        fleet = Fleet(self._folder / f"run-{self._runs}", **settings)
        for name in ("FLUSH_INTERVAL", "COLLECT_INTERVAL"):
            del fleet.environ[name]  # the defaults
        fleet.environ.update(extra)
        try:
            return self._run_services(fleet, config)
        finally:
            fleet.kill_all()

    def _run_services(self, fleet: Fleet, config: InfluxConfig | None) -> Run:
        fleet.migrate()
        fleet.broker.start()
        fleet.broker.wait_for("listening on")
        fleet.collector.start()
        fleet.collector.wait_for("subscribed as")
        time.sleep(1.0)  # it has nothing to do by then
        services = {"broker": fleet.broker, "collector": fleet.collector}
        before = {name: service.cpu_seconds() for name, service in services.items()}
        server, children = (self._server_cpu() if config else 0.0), children_cpu()
        began = time.monotonic()
        fleet.streamer.start()
        peaks = _watch(fleet, began)
        seconds = time.monotonic() - began
        cpu = {"streamer": children_cpu() - children}
        cpu |= {name: service.cpu_seconds() - before[name] for name, service in services.items()}
        if config is not None:
            cpu["influxd"] = self._server_cpu() - server
        else:
            store = SqliteStore(fleet.state_dir / "readings.sqlite3")
            self._check(store.stats().readings or 0)
            store.close()
        if (sent := _sent(fleet.streamer)) != self._rows:
            raise RuntimeError(f"{sent:,} readings were sent, not {self._rows:,}")
        return Run(self._rows, seconds, cpu, peaks)


def _sent(streamer: Service) -> int:
    """How many readings it says that it has sent."""
    for line in streamer.log.splitlines():
        if "done: " in line:
            return int(line.split("done: ", 1)[1].split()[0])
    raise RuntimeError(streamer.log)


def _peak_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def _watch(fleet: Fleet, began: float) -> dict[str, float]:
    """Wait until everything is committed; returns the most memory of each service, in MiB."""
    peaks = {service.name: 0.0 for service in fleet.services}
    while fleet.streamer.returncode is None or not all_committed(fleet):
        for service in fleet.services:
            peaks[service.name] = max(peaks[service.name], service.peak_mib())
        if time.monotonic() - began > LONGEST_SECONDS:
            raise RuntimeError(f"not done in {LONGEST_SECONDS:g} s: {fleet.collector.log[-2000:]}")
        time.sleep(0.05)
    return peaks


TITLES = {
    "ceiling": "ready-made lines",
    "defaults": "defaults",
    "backfill": "BATCH_SIZE=5000, FLUSH_INTERVAL=1s",
    "no-rollups": "BATCH_SIZE=5000, FLUSH_INTERVAL=1s, ROLLUPS=false",
    "telegraf": "Telegraf",
    "sqlite": "defaults, to SQLite",
}


def summarise(runs: dict[str, list[Run]], rows: int) -> dict[str, Any]:
    """Medians of all runs, by road."""
    figures: dict[str, Any] = {"rows": rows, "roads": {}}
    for road, each in runs.items():
        figures["roads"][road] = {
            "readings_per_second": statistics.median(run.rate for run in each),
            "cpu": {name: statistics.median(run.cpu[name] for run in each) / (rows / 1e6) for name in each[0].cpu},
            "peak_mib": {name: max(run.peak_mib[name] for run in each) for name in each[0].peak_mib},
            "rates": [run.rate for run in each],
        }
    return figures


def rows_of(figures: dict[str, Any]) -> list[list[str]]:
    """The table: a row for each road."""
    roads = figures["roads"]
    rows = []
    for road, each in roads.items():
        rate, cpu = each["readings_per_second"], each["cpu"]
        ratios = [
            f"{rate / roads[other]['readings_per_second']:.2f}" if other in roads else "–"
            for other in ("ceiling", "telegraf")
        ]
        ours = {name: used for name, used in cpu.items() if name != "influxd"}
        spelled = " + ".join(f"{name} {used:.2f}" for name, used in ours.items())
        rows.append(
            [
                TITLES[road], f"{rate:,.0f}", *ratios, f"{sum(ours.values()):.2f}{f' ({spelled})' if spelled else ''}",
                f"{cpu['influxd']:.2f}" if "influxd" in cpu else "–", f"{sum(each['peak_mib'].values()):,.0f}",
            ]
        )  # fmt: skip
    return rows


HEAD = (
    "road", "readings/s", "of ready-made lines", "of Telegraf", "CPU s per million, without the server",
    "the server's", "peak MiB, without the server",
)  # fmt: skip


def document(kept: dict[str, str], figures: dict[str, Any]) -> None:
    """Write the page's section and its chart."""
    lines = [
        Line(TITLES[road], [(number, rate) for number, rate in enumerate(each["rates"], 1)])
        for road, each in figures["roads"].items()
    ]
    title = f"{figures['rows']:,} readings from a capture to the store, round by round"
    save_chart(IMAGES / "endtoend.svg", title, Axis("round"), Axis("readings/s"), lines)
    text = [table(HEAD, rows_of(figures)), "", f"![{title}](images/endtoend.svg)", "", described(kept)]
    put_section("endtoend", "\n".join(text))


def main() -> None:
    """Measure all roads in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path, nargs="?")
    parser.add_argument("--rows", type=int, default=2_000_000, help="[%(default)s]")
    parser.add_argument("--rounds", type=int, default=5, help="[%(default)s]")
    parser.add_argument("--roads", nargs="+", choices=TITLES, default=list(ROADS))
    parser.add_argument("--telegraf", default="", help="the peer's binary; without it that road is left out")
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to measure")
    parser.add_argument(
        "--docs", action="store_true", help="measure nothing: write the last figures into the documentation"
    )
    options = parser.parse_args()
    if options.docs:
        document(*load("endtoend"))
        return
    if options.capture is None:
        parser.error("name a capture")
    roads = [road for road in options.roads if road != "telegraf" or options.telegraf]
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-endtoend-") as name:
        folder = Path(name)
        capture = folder / "capture.csv"
        make_capture(options.capture, capture, options.rows)
        server = Influxd(find_binary(), folder / "influxd")
        server.start()
        runs: dict[str, list[Run]] = {road: [] for road in roads}
        try:
            bench = Bench(server, capture, options.rows, folder, options.telegraf)
            for number in range(options.rounds):
                for road in roads[number % len(roads) :] + roads[: number % len(roads)]:
                    run = bench.run(road)
                    runs[road].append(run)
                    cpu = ", ".join(f"{each} {used:.1f}" for each, used in run.cpu.items())
                    print(f"round {number + 1}: {road:<10} {run.rate:>9,.0f} readings/s   CPU s: {cpu}", flush=True)
        finally:
            server.stop()
    figures = summarise(runs, options.rows)
    print(table(HEAD, rows_of(figures)))
    print(save("endtoend", figures))


if __name__ == "__main__":
    main()
