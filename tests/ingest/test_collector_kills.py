from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.influxd import find_binary
from tests.ingest import collector_kills


@pytest.mark.acceptance
def test_row_19_a_collector_killed_around_its_write_stores_everything_once(tmp_path: Path) -> None:
    outcome = collector_kills.run(tmp_path, find_binary(), 3, random.Random(19))
    assert outcome.kills == {"asked": 1, "done": 1, "told": 1}
    assert len(outcome.published) == 3 * collector_kills.BATCHES * collector_kills.GPUS * 3
    assert outcome.good, str(outcome)
