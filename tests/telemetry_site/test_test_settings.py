"""The settings of a test run: those of tests/settings.py, in each of its processes, whatever the shell says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(__file__).resolve().parents[2]


def test_this_process_has_them() -> None:
    assert os.environ["DJANGO_SETTINGS_MODULE"] == "telemetry_site.settings"  # for the services that tests start
    assert settings.SETTINGS_MODULE == "tests.settings"


@pytest.mark.parametrize("arguments", [(), ("--numprocesses", "1")], ids=["one process", "a worker"])
def test_a_run_has_them_whatever_the_shell_says(arguments: tuple[str, ...]) -> None:
    if arguments:
        pytest.importorskip("xdist", reason="needs pytest-xdist: run make setup-dev")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ran = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments,
            f"{Path(__file__)}::{test_this_process_has_them.__name__}",
        ],
        cwd=ROOT, env=environ | {"STATE_DIR": "/nowhere"}, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    assert "1 passed" in ran.stdout
