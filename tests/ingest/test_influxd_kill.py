from __future__ import annotations

from pathlib import Path

import pytest

from tests.influxd import find_binary
from tests.ingest import influxd_kill


@pytest.mark.acceptance
def test_row_20_killing_influxd_loses_nothing_and_stores_nothing_twice(tmp_path: Path) -> None:
    outcome = influxd_kill.run(tmp_path, find_binary(), readings=20_000, kills=2, rate=4_000, gpus=32)
    assert outcome.in_capture == 20_160
    assert outcome.series == 32
    assert outcome.good, str(outcome)
    lines = [line for line in outcome.collector_log.splitlines() if "ingest.reconnect" in line]
    # Each outage is told once when it begins and once when it ends.
    assert len(lines) <= 2 * outcome.kills
    assert sum("is back after" in line for line in lines) == len(lines) / 2
