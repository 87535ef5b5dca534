"""The Makefile: every target says what it does, and what its recipe runs is there."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "Makefile").read_text()

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def targets() -> set[str]:
    """The targets that people call."""
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", TEXT, re.MULTILINE))


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_the_default_target_lists_every_target_with_a_line() -> None:
    assert set(re.findall(r"^  ([a-z-]+) +\S", make().stdout, re.MULTILINE)) == targets()


def test_what_the_recipes_run_is_there() -> None:
    """Recipes of all targets, as if nothing was made yet: modules, commands of manage.py and files that they name."""
    made = make("--dry-run", "--always-make", "DOCKER_REGISTRY=registry.example.com", *sorted(targets()))
    assert made.returncode == 0, made.stderr
    modules = set(re.findall(r"python -m ((?:bench|tests|ci)\.[\w.]+|bench\b[\w.]*)", made.stdout))
    assert len(modules) > 10
    assert [name for name in sorted(modules) if importlib.util.find_spec(name) is None] == []
    files = set(
        re.findall(r"(?<![\w/.-])((?:ci|deploy|tests|docs)/[\w./-]+|requirements[\w.-]*\.(?:in|txt))", made.stdout)
    )
    own = {name for name in files if not name.startswith(("deploy/captures", "deploy/certificates", "deploy/.env"))}
    assert [name for name in sorted(own) if not (ROOT / name).exists()] == []


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
