from __future__ import annotations

import pytest

from ingest import unsupported
from ingest.unsupported import Unsupported


def test_each_sensor_that_a_gpu_lacks_is_said_once() -> None:
    lacking = Unsupported()
    for _ in range(3):
        for gpu in ("GPU-1", "GPU-2"):
            lacking.note(gpu, "a")
    lacking.note("GPU-1", "b")
    assert lacking.take() == ["GPU-1: not supported: a, b", "GPU-2: not supported: a"]
    lacking.note("GPU-1", "b")
    lacking.note("GPU-1", "c")
    assert lacking.take() == ["GPU-1: not supported: c"]
    assert lacking.take() == []


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsupported, "_MOST_REMEMBERED", 5)
    lacking = Unsupported()
    for number in range(50):
        lacking.note(f"GPU-{number}", "a")
    assert len(lacking.take()) == 5
