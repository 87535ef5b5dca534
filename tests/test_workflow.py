"""The GitHub workflow: what it runs is there, and actionlint finds nothing wrong with it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


def jobs() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    return found


def actionlint() -> str:
    """The program; without it the test is skipped, or fails where REQUIRE_ACTIONLINT is 1."""
    kept = sorted(Path("~/.cache/gpu-telemetry").expanduser().glob("actionlint-*/actionlint"))
    found = shutil.which("actionlint") or (str(kept[-1]) if kept else "")
    if not found:
        message = "needs actionlint: run make actionlint (needs Go)"
        if os.environ.get("REQUIRE_ACTIONLINT") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return found


def test_actionlint_finds_nothing() -> None:
    ran = subprocess.run([actionlint(), "-no-color", WORKFLOW], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_every_supported_python_runs_what_ci_runs() -> None:
    test = jobs()["test"]
    assert test["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert any(".ci/run" in step.get("run", "") for step in test["steps"])
    assert 'requires-python = ">=3.11"' in (ROOT / "pyproject.toml").read_text()


def test_every_action_is_pinned_to_a_commit_with_its_version_beside_it() -> None:
    used = re.findall(r"uses: (.+)", WORKFLOW.read_text())
    assert used
    for each in used:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each), each


def test_what_it_runs_is_there_and_it_may_only_read() -> None:
    text = WORKFLOW.read_text()
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= set(targets)
    for path in re.findall(r"(?:helm|tests|deploy)/[\w./-]+", text):
        assert (ROOT / path).exists(), path
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in jobs().values())
