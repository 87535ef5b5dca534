"""Fixtures of streamers and collectors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ingest.captures import write_capture


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """A capture of 120 readings: 10 GPUs, 3 metrics, 4 times."""
    return write_capture(tmp_path / "capture.csv", gpus=10, samples=4)
