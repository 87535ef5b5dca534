"""Whatever process is killed, and when: all windows are what a plain reckoning makes of the readings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ingest.rollups.kills import play


@pytest.mark.acceptance
@pytest.mark.timeout(240)
@pytest.mark.parametrize("store", ["sqlite", "influxdb"])
def test_kills_leave_no_wrong_window(tmp_path: Path, store: str) -> None:
    outcome = play(tmp_path, seed=20261129, kills=6, store=store, seconds=55.0)
    assert outcome.wrong == []
    assert set(outcome.kills.values()) == {2}
    assert len(outcome.kills) == 3
    assert outcome.windows >= 11
    assert outcome.on_the_way >= 1
