from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.deploy import restarts


@pytest.mark.acceptance
def test_rolling_restarts_under_load_lose_nothing_and_the_api_says_503_at_most(tmp_path: Path) -> None:
    outcome = restarts.run(tmp_path / "state", 1, random.Random(20261125))
    assert dict(outcome.restarts) == dict.fromkeys(("broker", "collector", "streamer", "web"), 1)
    assert outcome.load.answers[200] > 0
    assert outcome.good, str(outcome)
