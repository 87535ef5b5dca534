"""The make targets that people are told of are there, each with a line in the list."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TARGETS = [
    "help",
    "all",
    "setup",
    "run",
    "test",
    "build",
    "build-api",
    "build-mq-server",
    "build-streamer",
    "build-collector",
    "run-mq",
    "run-stream",
    "run-collect",
    "run-api",
    "fmt",
    "lint",
    "vet",
    "check",
    "influxd",
    "schemathesis",
    "helm",
    "kubernetes",
    "chart-docs",
    "kind-up",
    "kind-down",
    "coverage",
    "coverage-summary",
    "swagger",
    "soak",
    "nats-server",
    "bench-api",
    "bench-broker",
    "clean",
]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_the_default_target_lists_every_target_with_a_line() -> None:
    listed = re.findall(r"^  ([a-z-]+) +\S", make().stdout, re.MULTILINE)
    assert set(TARGETS) <= set(listed)
    assert make().stdout == make("help").stdout


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_can_be_made(target: str) -> None:
    run = make("--dry-run", target)
    assert run.returncode == 0, run.stderr


def test_an_old_python_is_named(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n')
    old.chmod(0o755)
    run = subprocess.run(["make", "setup", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.returncode != 0
    assert "Python 3.11 or newer is needed" in run.stderr
    assert "Python 3.9.2" in run.stderr


def test_what_people_read_names_only_targets_that_are_there() -> None:
    named = set(re.findall(r"\bmake ([a-z][a-z-]+)", (ROOT / "README.md").read_text()))
    assert named
    assert named <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
