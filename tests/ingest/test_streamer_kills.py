from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.ingest import streamer_kills
from tests.ingest.captures import write_capture


@pytest.mark.acceptance
def test_killing_a_streamer_at_full_speed_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamer_kills, "LONGEST_RUN", 350)
    capture = write_capture(tmp_path / "capture.csv", gpus=80, samples=300)
    outcome = streamer_kills.run(capture, tmp_path / "state", 2, random.Random(20250718))
    assert (outcome.rows, outcome.kills) == (72_000, 2)
    assert outcome.good, str(outcome)
