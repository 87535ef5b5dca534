from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.ingest import kill_rounds
from tests.ingest.captures import write_capture


@pytest.mark.acceptance
def test_killing_any_part_loses_nothing_and_stores_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kill_rounds, "LONGEST_PAUSE", 1.5)
    capture = write_capture(tmp_path / "capture.csv", gpus=20, samples=5)
    outcome = kill_rounds.run(capture, tmp_path / "state", 2, random.Random(20250718))
    assert outcome.kills == {"broker": 2, "collector": 2, "streamer": 2}
    assert len(outcome.expected) == 300
    assert outcome.good, str(outcome)
