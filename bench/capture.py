"""How fast one streamer takes a large capture: read, checked, published and answered, and how much memory it has.

    python -m bench.capture capture.csv                      # 2,000,000 rows made from this one
    python -m bench.capture capture.csv --gb 5 --rounds 1    # constant memory

A real broker (its defaults: every answer is on the disk) on one core and a real ``manage.py stream`` on another. Beside them, on the
streamer's core and over the same rows, what one would write by hand (the csv module, a batch of 100 as JSON, sent nowhere), and
pyarrow's bare reader, which no one can outrun that uses it. A figure is the median of the rounds; only ratios carry over to
another machine.
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
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from bench.make_capture import make_capture
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
    """One run of the streamer. ``seconds`` from its first to its last line of log, ``in_all`` with its start; CPU likewise in all."""

    readings: int
    seconds: float
    in_all: float
    streamer_cpu: float
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
    """How far a process has read a file."""
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


def stream(big: Path, state_dir: Path) -> Run:
    """One run from an empty log."""
    fleet = Fleet(state_dir, CSV_PATH=big, COLLECT_INTERVAL="5s")
    size = big.stat().st_size
    try:
        broker = _start(fleet.broker, BROKER_CORE)
        fleet.broker.wait_for("listening")
        broker_cpu = cpu_seconds(broker)
        began = time.monotonic()
        streamer = _start(fleet.streamer, STREAMER_CORE)
        rss: list[int] = []
        peak, cpu = 0, 0.0
        while fleet.streamer.returncode is None:
            try:
                peak, cpu = _status(streamer, "VmHWM") or peak, cpu_seconds(streamer)
                if _place(streamer, big) >= size * (len(rss) + 1) // 10:
                    rss.append(_status(streamer, "VmRSS"))
            except OSError:
                break
            time.sleep(0.05)
        status = fleet.streamer.wait()
        in_all = time.monotonic() - began
        log = fleet.streamer.log
        first, last = re.search(f"{STAMP}.*streaming ", log), re.search(f"{STAMP}.*done: ([0-9]+) readings", log)
        if status or not first or not last:
            raise RuntimeError(f"the streamer ended with {status}: {log[-2000:]}")
        seconds = (datetime.fromisoformat(last[1]) - datetime.fromisoformat(first[1])).total_seconds()
        return Run(int(last[2]), seconds, in_all, cpu, cpu_seconds(broker) - broker_cpu, peak, rss)
    finally:
        fleet.kill_all()


def peer(code: str, big: Path) -> float:
    """Seconds that a script takes for the capture, on the streamer's core."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", code, str(big)], cwd=ROOT)
    os.sched_setaffinity(process.pid, {STREAMER_CORE})
    if process.wait():
        raise RuntimeError(f"a peer ended with {process.returncode}")
    return time.monotonic() - began


def main() -> None:
    """Make the capture, run the rounds, print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("capture", type=Path, help="the capture that the large one is made of")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--gb", type=float, help="make it this large instead, in GB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true", help="the streamer alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-capture-") as folder:
        big = Path(folder, "big.csv")
        rows = options.rows
        if options.gb:
            with options.capture.open("rb") as file:
                lines = sum(1 for _ in file) - 1
            rows = int(options.gb * 1e9 / options.capture.stat().st_size * lines)
        make_capture(options.capture, big, rows)
        out = sys.stdout.write
        out(f"{rows:,} rows, {big.stat().st_size / 1e9:.2f} GB\n")
        runs: list[Run] = []
        by_hand, bare = [], []
        for number in range(options.rounds):
            state = Path(folder, f"state-{number}")
            run = stream(big, state)
            shutil.rmtree(state)
            runs.append(run)
            if run.readings != rows:
                raise RuntimeError(f"{run.readings} readings of {rows} rows")
            out(
                f"{run.rate:9,.0f} readings/s ({run.seconds:.1f} s; {run.in_all:.1f} s with the start)   CPU: streamer "
                f"{run.streamer_cpu:.1f} s, broker {run.broker_cpu:.1f} s   peak {run.peak_kib / 1000:.0f} MB, at 10 % … 100 %: "
                f"{' '.join(f'{each / 1000:.0f}' for each in run.rss_kib)}\n"
            )
            if not options.no_peers:
                by_hand.append(rows / peer(BY_HAND, big))
                bare.append(rows / peer(BARE_READER, big))
                out(
                    f"{by_hand[-1]:9,.0f} readings/s by hand (csv, json)   {bare[-1]:,.0f} rows/s pyarrow's bare reader\n"
                )
        rate = statistics.median(run.rate for run in runs)
        out(f"median: {rate:,.0f} readings/s, peak {max(run.peak_kib for run in runs) / 1000:.0f} MB")
        if by_hand:
            out(
                f"; {rate / statistics.median(by_hand):.1f} times what is written by hand, "
                f"{rate / statistics.median(bare):.2f} of the bare reader"
            )
        out("\n")


if __name__ == "__main__":
    main()
