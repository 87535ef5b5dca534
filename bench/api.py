"""What the web service answers a second, and how fast: its most used calls, on both stores, asked by wrk over HTTP.

    python -m bench.api                                # 256 GPUs x 10 metrics x 300 s on sqlite and influxdb
    python -m bench.api --stores influxdb --seconds 10
    python -m bench.api --lists 10000                  # only the lists of a large fleet

It starts gunicorn (2 workers) and an influxd of its own in a temporary folder. wrk, the service and influxd share the machine:
that is the condition. Server time is the time inside the service, without wrk and the network: of one request at a time, asked through
WSGI in a process of its own. Resident memory is that of the workers at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.stores import METRICS, fleet
from tests.influxd import Influxd
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 60.0
CONNECTIONS = (1, 8, 32)
STORES = ("sqlite", "influxdb")


class Call(NamedTuple):
    """One question, and the least requests/s that are wanted of it on influxdb (0: none is)."""

    name: str
    path: str
    wanted: int = 0


def calls(gpus: int) -> list[Call]:
    """The five most used, and the pipeline's statistics."""
    uuid = fleet(gpus)[gpus // 2].uuid
    return [
        Call("all GPUs", "/api/v1/gpus", 150),
        Call("one GPU", f"/api/v1/gpus/{uuid}"),
        Call("one GPU, one metric, 100 rows", f"/api/v1/gpus/{uuid}/telemetry?metric_name={METRICS[0]}&limit=100", 600),
        Call("one GPU, all metrics, 100 rows", f"/api/v1/gpus/{uuid}/telemetry?limit=100", 400),
        Call("hosts", "/api/v1/hosts"),
        Call("pipeline statistics", "/api/v1/stats"),
    ]


class Rate(NamedTuple):
    """What wrk saw; times in ms."""

    requests: float
    p50: float
    p99: float
    failed: int


def ask_with_wrk(url: str, connections: int, seconds: float) -> Rate:
    """Ask one address again and again."""
    threads = 2 if connections > 1 else 1
    out = subprocess.run(
        ["wrk", "-t", str(threads), "-c", str(connections), "-d", f"{seconds:g}s", "--latency", url],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    assert rate is not None, out
    other = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    socket_errors = re.search(r"Socket errors: .*", out)
    failed = (int(other[1]) if other else 0) + sum(
        map(int, re.findall(r"\d+", socket_errors[0] if socket_errors else ""))
    )
    return Rate(float(rate[1]), _percentile(out, "50%"), _percentile(out, "99%"), failed)


def _percentile(out: str, name: str) -> float:
    found = re.search(rf"{name}\s+([\d.]+)(us|ms|s)\b", out)
    assert found is not None, out
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]]


@contextmanager
def serving(environ: dict[str, str]) -> Iterator[tuple[str, int]]:
    """The service on a free port: its address, and the process id of its parent."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), "serve", "--port", str(port), "--web-concurrency", "2"],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{url}/ready", timeout=5):
                    break
            except OSError:
                assert time.monotonic() < deadline, "the service does not start"
                time.sleep(0.1)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(30)


def resident(parent: int) -> list[str]:
    """Resident memory of each worker, now and at its highest."""
    found = []
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        status = Path(f"/proc/{child}/status").read_text()
        now, most = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) // 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[index]
        found.append(f"{now} MiB (highest {most})")
    return found


def fill(environ: dict[str, str], gpus: int, readings: int) -> None:
    """A made-up fleet in the store and the inventory."""
    began = time.perf_counter()
    arguments = ["--gpus", str(gpus), "--readings", str(readings)]
    out = subprocess.run(
        [sys.executable, "-m", "bench.api_data", *arguments],
        env=environ,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ).stdout
    print(f"{gpus} GPUs, {int(out):,} readings; filled in {time.perf_counter() - began:.0f} s", flush=True)


def measure(environ: dict[str, str], gpus: int, seconds: float, connections: tuple[int, ...]) -> None:
    """Print rate and times of each call."""
    with serving(environ) as (url, parent):
        for call in calls(gpus):
            with urllib.request.urlopen(url + call.path, timeout=60) as answer:
                body = answer.read()
            told = json.loads(body)
            rows = len(told.get("gpus") or told.get("data") or [1])
            ask_with_wrk(url + call.path, 8, 1)
            print(f"  {call.name}: {rows} rows, {len(body):,} B", flush=True)
            for each in connections:
                rate = ask_with_wrk(url + call.path, each, seconds)
                goal = f"   goal {call.wanted}" if call.wanted and "influx" in environ["STORAGE_TYPE"] else ""
                print(
                    f"    {each:>3} connections {rate.requests:>8,.0f} requests/s   p50 {rate.p50:7.2f} ms   p99 {rate.p99:7.2f} ms"
                    f"{f'   FAILED {rate.failed}' if rate.failed else ''}{goal}",
                    flush=True,
                )
        print(f"  resident memory of the workers: {', '.join(resident(parent))}", flush=True)


def measure_server_time(environ: dict[str, str], paths: list[str], rounds: int = 30) -> None:
    """Print the time that a request takes inside the service."""
    out = subprocess.run(
        [sys.executable, "-m", "bench.api", "--inside", str(rounds), *paths],
        env=environ, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ).stdout  # fmt: skip
    print(out, end="", flush=True)


def ask_inside(paths: list[str], rounds: int) -> None:
    """In this process: each request through the whole of Django, without a server around it."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "telemetry_site.settings")
    from django.core.servers.basehttp import get_internal_wsgi_application
    from django.test import RequestFactory

    application = get_internal_wsgi_application()
    for path in paths:
        spent = []
        for _ in range(rounds + 3):
            environ = RequestFactory(HTTP_HOST="127.0.0.1").get(path).environ
            began = time.perf_counter()
            response = application(environ, lambda *_: None)  # type: ignore[arg-type]
            size = sum(map(len, response))
            spent.append((time.perf_counter() - began) * 1e3)
            response.close()
        told = sorted(spent[3:])
        print(
            f"  {path}: {size:,} B, server time p50 {statistics.median(told):.1f} ms, p99 {told[int(len(told) * 0.99)]:.1f} ms"
        )


def environment(folder: Path, storage: str, server: Influxd | None) -> dict[str, str]:
    """What the service and its filling are started with."""
    values = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}}
    values |= {"STATE_DIR": str(folder / storage), "STORAGE_TYPE": storage, "RETENTION_PERIOD": "0"}
    values["API_AUTH_REQUIRED"] = "false"  # which server asks inside this process is not known
    if server is not None:
        values |= {"INFLUXDB_URL": server.url, "INFLUXDB_TOKEN": server.token, "INFLUXDB_BUCKET": "bench"}
    return values


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=256)
    parser.add_argument("--readings", type=int, default=768_000, help="[%(default)s: 300 s]")
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement [%(default)s]")
    parser.add_argument("--connections", type=int, nargs="+", default=CONNECTIONS)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument(
        "--lists", type=int, default=10_000, help="GPUs of the fleet whose lists are asked for; 0: none"
    )
    parser.add_argument("--only-lists", action="store_true")
    parser.add_argument("--inside", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        ask_inside(options.paths, options.inside)
        return
    if shutil.which("wrk") is None and not options.only_lists:
        raise SystemExit("skipped: wrk is not here; it is a package of that name")
    with tempfile.TemporaryDirectory(prefix="bench-api-") as name:
        folder = Path(name)
        for storage in () if options.only_lists else options.stores:
            print(f"{storage}:", flush=True)
            server = start_influxd(folder) if storage == "influxdb" else None
            if storage == "influxdb" and server is None:
                print("  skipped: no influxd here: run make influxd")
                continue
            try:
                environ = environment(folder, storage, server)
                fill(environ, options.gpus, options.readings)
                measure(environ, options.gpus, options.seconds, tuple(options.connections))
                measure_server_time(environ, [call.path for call in calls(options.gpus)])
            finally:
                if server is not None:
                    server.stop()
        if options.lists:
            environ = environment(folder / "lists", "sqlite", None)
            print("lists of a large fleet:", flush=True)
            fill(environ, options.lists, options.lists * 10)
            measure_server_time(
                environ, ["/api/v1/gpus", "/api/v1/gpus?page=7", "/api/v1/gpus?search=hgpu-07", "/api/v1/hosts"]
            )


def start_influxd(folder: Path) -> Influxd | None:
    """An influxd of our own; None where there is no binary."""
    found = subprocess.run(["ci/influxd.sh", "--find"], capture_output=True, text=True, check=False, cwd=ROOT)
    if found.returncode:
        return None
    server = Influxd(found.stdout.strip(), folder / "influxd")
    server.start()
    return server


if __name__ == "__main__":
    main()
