from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.ingest.captures import COLUMNS, START, line, row
from tests.ingest.processes import Fleet, all_committed, wait_until


@pytest.mark.acceptance
def test_a_collector_forgets_a_gpu_that_was_not_seen_for_long(tmp_path: Path) -> None:
    capture = tmp_path / "capture.csv"
    old, new = row(gpu=1, time=START), row(gpu=2, time="2025-07-28T20:42:34Z")
    capture.write_text(",".join(COLUMNS) + "\n" + line(old) + line(new))
    fleet = Fleet(tmp_path / "state", CSV_PATH=capture, GPU_RETENTION="5d")
    try:
        fleet.broker.start()
        fleet.collector.start()
        fleet.streamer.start()
        assert fleet.streamer.wait() == 0
        wait_until(lambda: all_committed(fleet), "the commit")
        fleet.collector.stop()
        fleet.collector.start()  # each start has a pass
        wait_until(lambda: "forgot 0 placements and 1 GPUs" in fleet.collector.log, "the pass")
        with sqlite3.connect(fleet.state_dir / "inventory.sqlite3") as database:
            assert database.execute("SELECT count(*) FROM inventory_gpu").fetchone() == (1,)
        database.close()
    finally:
        fleet.kill_all()
