"""Ask a running service all that its description allows, and much that it does not: ``make schemathesis``.

On SQLite the API is closed and asked with a token; on InfluxDB (where there is one) it is open. The services are real
and a synthetic fleet goes through them meanwhile. All checks of Schemathesis, its stateful phase too: any failure is one.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.api.serving import ROOT, START_SECONDS, environment, manage
from tests.influxd import Influxd, find_binary
from tests.ports import free_port

PROGRAM = ROOT / ".venv" / "schemathesis" / "bin" / "schemathesis"


def main() -> int:
    """The exit status: 0 when no check failed on any store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each store")
    parser.add_argument("--examples", type=int, default=20, help="of each operation, at most, in each phase")
    parser.add_argument("--seed", type=int, help="to repeat a run")
    options = parser.parse_args()
    flags = ["--max-time", str(options.seconds), "--max-examples", str(options.examples)]
    if options.seed is not None:
        flags += ["--seed", str(options.seed)]
    with tempfile.TemporaryDirectory(prefix="schemathesis-") as folder, ExitStack() as stack:
        failed = _closed_on_sqlite(Path(folder) / "sqlite", flags)
        try:
            server = Influxd(find_binary(), Path(folder) / "influxd")
        except pytest.skip.Exception as reason:
            print(f"not on InfluxDB: {reason}")  # noqa: T201
            return failed
        server.start()
        stack.callback(server.stop)
        return failed | _open_on_influxdb(Path(folder) / "influxdb", flags, server)


def _closed_on_sqlite(state_dir: Path, flags: Sequence[str]) -> int:
    with pipeline(state_dir, API_AUTH_REQUIRED="true") as address:
        made = subprocess.run(
            manage("apitoken", "create", "schemathesis", "--scope", "admin"),
            env=environment(state_dir),
            check=True,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )
        header = f"Authorization: Bearer {made.stdout.strip()}"
        return ask(address, "closed, on sqlite", [*flags, "--header", header], header)


def _open_on_influxdb(state_dir: Path, flags: Sequence[str], server: Influxd) -> int:
    config = server.config()
    environ = {
        "STORAGE_TYPE": "influxdb",
        "INFLUXDB_URL": config.url,
        "INFLUXDB_TOKEN": config.token,
        "INFLUXDB_ORG": config.org,
        "INFLUXDB_BUCKET": config.bucket,
    }
    with pipeline(state_dir, API_AUTH_REQUIRED="false", **environ) as address:
        return ask(address, "open, on influxdb", flags)


@contextmanager
def pipeline(state_dir: Path, **environ: str) -> Iterator[str]:
    """Everything of ``make run`` on free ports; the address of its web service."""
    port = free_port()
    state_dir.mkdir(parents=True)
    with (state_dir / "output").open("w+") as output:
        process = subprocess.Popen(
            manage("pipeline", "--tcp-addr", ":0", "--http-addr", ":0", "--port", str(port), "--interval", "1s"),
            env=environment(state_dir, **environ),
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + START_SECONDS
            while not _is_ready(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    output.seek(0)
                    raise SystemExit(f"the pipeline does not start:\n{output.read()}")
                time.sleep(0.2)
            yield address
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(START_SECONDS)
        output.seek(0)
        text = output.read()
        if "Traceback" in text:
            raise SystemExit(f"a service told of a fault:\n{text}")


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/ready", timeout=5) as answer:
            return int(answer.status) == 200
    except OSError:
        return False


def ask(address: str, title: str, flags: Sequence[str], header: str = "") -> int:
    """Run Schemathesis against the service; its exit status."""
    headers = dict([header.split(": ", 1)]) if header else {}
    deadline = time.monotonic() + START_SECONDS
    request = urllib.request.Request(f"{address}/api/v1/telemetry?page_size=1", headers=headers)
    while True:  # until there are readings to be asked for
        with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:
            if json.load(answer)["count"]:
                break
        if time.monotonic() > deadline:
            raise SystemExit("no reading has arrived")
        time.sleep(0.2)
    print(f"== {title}", flush=True)  # noqa: T201
    command = [str(PROGRAM), "--config-file", "tests/api/schemathesis.toml", "run", f"{address}/api/schema"]
    command += ["--checks", "all", "--no-color", "--continue-on-failure", *flags]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode


if __name__ == "__main__":
    sys.exit(main())
