"""Where programs that measure leave what they found: JSON in build/, tables and charts in docs/performance.md."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"
BUILD = ROOT / "build"


def machine() -> dict[str, str]:
    """The machine and the versions, in words."""
    found = subprocess.run([ROOT / "ci" / "influxd.sh", "--find"], capture_output=True, text=True, check=False)
    influxd = re.search(r"influxd-([\d.]+)/", found.stdout)  # one that was built here does not know its version
    disk = shutil.disk_usage(BUILD if BUILD.exists() else ROOT)
    return {
        "time": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "revision": subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip(),
        "cpu": f"{os.cpu_count()} cores, {_field('/proc/cpuinfo', 'model name') or platform.processor()}",
        "memory": f"{int((_field('/proc/meminfo', 'MemTotal') or '0 kB').split()[0]) / 1024**2:.0f} GiB",
        "disk": f"{_mount()} ({disk.total / 1024**3:.0f} GiB)",
        "load": f"{os.getloadavg()[0]:.1f}",
        "system": f"{platform.system()} {platform.release()}",
        "versions": ", ".join(
            [f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
            + [f"{name} {version(name)}" for name in ("numpy", "msgspec", "Django")]
            + ([f"InfluxDB {influxd[1]}"] if influxd else [])
        ),
    }  # fmt: skip


def _field(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _mount() -> str:
    """The file system that holds the repository, and its device."""
    found = (
        [line.split()[:3] for line in Path("/proc/mounts").read_text().splitlines()]
        if Path("/proc/mounts").exists()
        else []
    )
    fitting = [each for each in found if str(ROOT).startswith(each[1])]
    device, _, kind = max(fitting, key=lambda each: len(each[1]), default=("an unknown disk", "", "unknown"))
    return f"{kind} on {device}"


def save(name: str, results: Any) -> Path:
    """Keep results as build/NAME.json, with the machine's description. Returns the path."""
    BUILD.mkdir(exist_ok=True)
    path = BUILD / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), "results": results}, indent=1) + "\n")
    return path


def load(name: str) -> tuple[dict[str, str], Any]:
    """The machine's description and the results that ``save`` kept. Raises SystemExit where there are none."""
    path = BUILD / f"{name}.json"
    if not path.exists():
        raise SystemExit(f"error: no {path}: measure first")
    kept = json.loads(path.read_text())
    return kept["machine"], kept["results"]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def described(kept: dict[str, str]) -> str:
    """The line under a table that says where and when it was measured."""
    return (
        f"Measured {kept['time']} at {kept['revision']} on {kept['cpu']}, {kept['memory']}, {kept['disk']}, {kept['system']}; {kept['versions']}."
        f" The load at the end was {kept['load']}: where it is above the number of cores, times are too long."
    )


def put_section(name: str, text: str, page: Path = PAGE) -> None:
    """Replace what stands on the page between the marks of this name. Raises ValueError if it has none."""
    begin, end = f"<!-- {name}: made by python -m bench.{name} --docs -->", f"<!-- end of {name} -->"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no place for {name}: it needs {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")
