"""Measures how fast one streamer takes a large capture (read, checked, published, answered), and its memory.

    python -m bench.capture capture.csv                      # 2,000,000 rows made from this one
    python -m bench.capture capture.csv --gb 5 --rounds 1    # constant memory
    python -m bench.capture capture.csv --collect sqlite --collect influxdb    # then stored, from a full log
    python -m bench.capture capture.csv --against ../base    # the same in another checkout, round by round: CPU seconds

The broker (with its defaults: every answer is on disk) runs on one core, ``manage.py stream`` on another. The streamer also gets a
capture whose pods change among the rows. For comparison, on the streamer's core and over the same rows: a script as one
would write it by hand (the csv module, batches of 100 as JSON, sent nowhere), and pyarrow's bare reader, the upper bound for any
reader that uses it. Figures are medians of the rounds; only ratios carry over to another machine.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from bench.make_capture import change_pods, make_capture
from tests.influxd import Influxd, find_binary
from tests.ingest.processes import ROOT, Fleet, Service

STREAMER_CORE, BROKER_CORE = 0, 1
STAMP = r"([0-9]{4}-[0-9-]+ [0-9:,]+)"
BY_HAND = """
import csv, json, sys
batch = []
with open(sys.argv[1], newline="") as file:
    for row in csv.DictReader(file):
        batch.append({"timestamp": row["timestamp"], "metric_name": row["metric_name"], "gpu_id": int(row["gpu_id"]),
                      "device": row["device"], "uuid": row["uuid"], "model_name": row["modelName"],
                      "hostname": row["Hostname"], "value": float(row["value"])})
        if len(batch) == 100:
            json.dumps({"metrics": batch}).encode()
            batch.clear()
"""
BARE_READER = """
import sys
from pyarrow import csv
options = csv.ReadOptions(use_threads=False, block_size=1 << 20)
for batch in csv.open_csv(sys.argv[1], read_options=options, parse_options=csv.ParseOptions(newlines_in_values=True)):
    pass
"""


class Run(NamedTuple):
    """One run of a service. ``seconds`` from its first to its last line of log, ``in_all`` with its start; CPU likewise in all."""

    readings: int
    seconds: float
    in_all: float
    cpu: float
    broker_cpu: float
    peak_kib: int
    rss_kib: list[int]

    @property
    def rate(self) -> float:
        """Readings a second."""
        return self.readings / self.seconds


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int, key: str) -> int:
    found = re.search(rf"{key}:\s+([0-9]+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0


def _place(pid: int, path: Path) -> int:
    """The position to which a process has read a file."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if link.readlink() == path:
                found = re.search(r"pos:\s+([0-9]+)", Path(f"/proc/{pid}/fdinfo/{link.name}").read_text())
                return int(found[1]) if found else 0
        except FileNotFoundError:
            continue
    return 0


def _start(service: Service, core: int) -> int:
    """Start a service on one core; returns its process id."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        service.start()
    finally:
        os.sched_setaffinity(0, before)
    return service.pid


def measure(service: Service, broker: Service, first: str, last: str, progress: Callable[[int], float]) -> Run:
    """Run a service on its core until it ends by itself. ``progress`` returns the share done, for its process id.

    Its log has ``first`` where the work begins, and ``last``, with the number of readings, where it ends.
    """
    broker_cpu = cpu_seconds(broker.pid)
    began = time.monotonic()
    pid = _start(service, STREAMER_CORE)
    rss: list[int] = []
    peak, cpu = 0, 0.0
    while service.returncode is None:
        try:
            peak, cpu = _status(pid, "VmHWM") or peak, cpu_seconds(pid)
            if progress(pid) >= (len(rss) + 1) / 10:
                rss.append(_status(pid, "VmRSS"))
        except OSError:
            break
        time.sleep(0.05)
    status = service.wait()
    in_all = time.monotonic() - began
    begun, done = re.search(f"{STAMP}.*{first}", service.log), re.search(f"{STAMP}.*{last}", service.log)
    if status or not begun or not done:
        raise RuntimeError(f"{service.name} ended with {status}: {service.log[-2000:]}")
    seconds = (datetime.fromisoformat(done[1]) - datetime.fromisoformat(begun[1])).total_seconds()
    return Run(int(done[2]), seconds, in_all, cpu, cpu_seconds(broker.pid) - broker_cpu, peak, rss)


def stream(fleet: Fleet, big: Path) -> Run:
    """The streamer."""
    size = big.stat().st_size
    return measure(
        fleet.streamer, fleet.broker, "streaming ", "done: ([0-9]+) readings", lambda pid: _place(pid, big) / size
    )


def collect(fleet: Fleet, store: str, folder: Path) -> Run:
    """A collector that reads the log from its start."""
    fleet.environ |= {"STORAGE_TYPE": store, "COLLECTOR_ID": store, "FLUSH_INTERVAL": "10s"}
    server = Influxd(find_binary(), folder / "influxd") if store == "influxdb" else None
    collector = Service(store, fleet, "collect", "--once")
    try:
        if server is not None:
            server.start()
            fleet.environ |= {
                "INFLUXDB_URL": server.url, "INFLUXDB_TOKEN": server.token, "INFLUXDB_ORG": server.org,
            }  # fmt: skip
        return measure(
            collector, fleet.broker, "subscribed as", "stopped: [0-9]+ messages, ([0-9]+) readings", lambda pid: 0.0
        )
    finally:
        collector.kill()
        if server is not None:
            server.stop()


def peer(code: str, big: Path) -> float:
    """Seconds that a script takes for the capture, on the streamer's core."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", code, str(big)], cwd=ROOT)
    os.sched_setaffinity(process.pid, {STREAMER_CORE})
    if process.wait():
        raise RuntimeError(f"a peer ended with {process.returncode}")
    return time.monotonic() - began


def compare(capture: Path, rows: int, rounds: int, other: Path) -> None:
    """The streamer's CPU seconds here and in another checkout, in turn."""
    seconds: dict[Path, list[float]] = {ROOT: [], other: []}
    for _ in range(rounds):
        for tree, each in seconds.items():
            command = [
                sys.executable, "-m", "bench.capture", str(capture), "--rows", str(rows), "--rounds", "1", "--no-peers",
                *(["--no-pods"] if tree == ROOT else []),
            ]  # fmt: skip
            done = subprocess.run(command, cwd=tree, check=True, stdout=subprocess.PIPE, text=True)
            each.append(float(re.findall(r"streamer .* CPU: ([0-9.]+) s", done.stdout)[0]))
            out(f"{each[-1]:6.2f} s of CPU in {tree}")
    here, there = (statistics.median(each) for each in seconds.values())
    out(f"{capture.name}: {here:.2f} s of CPU here, {there:.2f} s there: {there / here:.2f} times as fast")


def run_rounds(capture: Path, rows: int, options: argparse.Namespace, folder: Path) -> None:
    """Stream a large capture made of this one, round by round, and print the figures."""
    big = folder / "big.csv"
    make_capture(capture, big, rows)
    out(f"{capture.name}: {rows:,} rows, {big.stat().st_size / 1e9:.2f} GB")
    rates: dict[str, list[float]] = {}
    peak = 0
    for number in range(options.rounds):
        state = folder / f"state-{number}"
        fleet = Fleet(state, CSV_PATH=big, COLLECT_INTERVAL="5s")
        fleet.migrate()
        try:
            _start(fleet.broker, BROKER_CORE)
            fleet.broker.wait_for("listening")
            run = stream(fleet, big)
            tell("streamer", run, rows)
            rates.setdefault("streamer", []).append(run.rate)
            peak = max(peak, run.peak_kib)
            for store in options.collect:
                run = collect(fleet, store, state)
                tell(store, run, rows)
                rates.setdefault(f"collector, {store}", []).append(run.rate)
        finally:
            fleet.kill_all()
            shutil.rmtree(state)
        for name, code in {} if options.no_peers else {"by hand": BY_HAND, "bare reader": BARE_READER}.items():
            rates.setdefault(name, []).append(rows / peer(code, big))
            out(f"{rates[name][-1]:9,.0f} rows/s {name}")
    medians = {name: statistics.median(each) for name, each in rates.items()}
    out(
        "median: " + ", ".join(f"{name} {rate:,.0f}" for name, rate in medians.items()) + f"; peak {peak / 1000:.0f} MB"
    )
    if not options.no_peers:
        by_hand, bare = (medians["streamer"] / medians[name] for name in ("by hand", "bare reader"))
        out(f"the streamer is {by_hand:.1f} times what is written by hand, {bare:.2f} of the bare reader")


def main() -> None:
    """Make the captures, run the rounds, print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("capture", type=Path, help="the capture that the large one is made of")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--gb", type=float, help="make it this large instead, in GB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true", help="the streamer alone")
    parser.add_argument("--no-pods", action="store_true", help="without the capture whose pods change")
    parser.add_argument("--against", type=Path, help="another checkout, to compare the CPU time with")
    parser.add_argument(
        "--collect",
        action="append",
        default=[],
        choices=["sqlite", "influxdb"],
        help="then a collector into this store",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-capture-") as name:
        folder = Path(name)
        captures = [options.capture.resolve()]
        if not options.no_pods:
            captures.append(folder / "pods-that-change.csv")
            change_pods(captures[0], captures[-1])
        for capture in captures:
            rows = options.rows
            if options.gb:
                with capture.open("rb") as file:
                    lines = sum(1 for _ in file) - 1
                rows = int(options.gb * 1e9 / capture.stat().st_size * lines)
            if options.against:
                compare(capture, rows, options.rounds, options.against.resolve())
            else:
                run_rounds(capture, rows, options, folder)


def tell(name: str, run: Run, rows: int) -> None:
    """Print one run. Raises RuntimeError where it has not all rows."""
    out(
        f"{run.rate:9,.0f} readings/s {name} ({run.seconds:.1f} s; {run.in_all:.1f} s with the start)   CPU: {run.cpu:.1f} s, "
        f"broker {run.broker_cpu:.1f} s   peak {run.peak_kib / 1000:.0f} MB"
        + (f", at 10 % … 100 %: {' '.join(f'{each / 1000:.0f}' for each in run.rss_kib)}" if run.rss_kib else "")
    )
    if run.readings != rows:
        raise RuntimeError(f"{run.readings} readings of {rows} rows")


def out(line: str) -> None:
    """One line for people, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
