"""Fixtures for all tests."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

# Before Django loads its settings: no setting of the developer's shell, and a state folder that is ours alone.
from telemetry_site.options import BY_NAME

for _name in BY_NAME:
    os.environ.pop(_name, None)
    os.environ.pop(f"{_name}_FILE", None)
_STATE = tempfile.TemporaryDirectory(prefix="gpu-telemetry-tests-")
os.environ["STATE_DIR"] = _STATE.name

# The real capture that some tests check against. It is no part of this project: absent, they are skipped.
_CAPTURE = Path(__file__).resolve().parents[2] / "shared" / "data" / "dcgm_metrics_20250718_134233.csv"


@pytest.fixture(scope="session")
def real_capture() -> Path:
    """The path of the real DCGM capture; skips where it is not there. CAPTURE_PATH names another place."""
    path = Path(os.environ.get("CAPTURE_PATH") or _CAPTURE)
    if not path.is_file():
        pytest.skip("needs the real DCGM capture: set CAPTURE_PATH to it")
    return path
