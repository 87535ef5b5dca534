"""A streamer whose spool folder came from a copy: a restore of an older backup, or a cloned machine. Nothing that it reads is lost."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from tests.ingest.processes import Fleet
from tests.ingest.wiring import read_batches

HOSTS, GPUS = 2, 3


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(
        tmp_path / "state",
        SOURCE="simulate",
        SIM_HOSTS=HOSTS,
        SIM_GPUS_PER_HOST=GPUS,
        BATCH_SIZE=10,
        INSTANCE_ID="s1",
    )


def sample_once(fleet: Fleet) -> int:
    """Runs the streamer for one sample of its fleet; returns how many readings it says were answered."""
    before = len(fleet.streamer.log)
    fleet.streamer.start("--once")
    assert fleet.streamer.wait() == 0, fleet.streamer.log
    found = re.search(r"(\d+) readings? read; (\d+) sent and answered", fleet.streamer.log[before:])
    assert found, fleet.streamer.log[before:]
    assert found[1] == found[2]
    return int(found[1])


def readings_in_log(fleet: Fleet) -> int:
    return sum(batch.block.count() for batch in asyncio.run(read_batches(fleet.port)))


@pytest.mark.acceptance
def test_what_a_streamer_reads_after_a_restore_of_its_spool_is_stored(fleet: Fleet, tmp_path: Path) -> None:
    folder = fleet.state_dir / "spool" / "s1"
    try:
        fleet.broker.start()
        fleet.broker.wait_for("listening on")
        expected = sample_once(fleet)
        shutil.copytree(folder, tmp_path / "backup")
        for _ in range(3):
            expected += sample_once(fleet)
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "backup", folder)
        for _ in range(2):
            expected += sample_once(fleet)
        assert expected > 0
        assert readings_in_log(fleet) == expected
    finally:
        fleet.kill_all()


@pytest.mark.acceptance
def test_unanswered_batches_of_a_restored_spool_arrive_once_and_new_ones_too(fleet: Fleet, tmp_path: Path) -> None:
    """The copy was made while the broker was away, so what it holds was sent before the restore as well."""
    folder = fleet.state_dir / "spool" / "s1"
    try:
        fleet.streamer.start()
        fleet.streamer.wait_for("streaming ")
        while not list(folder.glob("*.log")) or not sum(path.stat().st_size for path in folder.glob("*.log")):
            assert fleet.streamer.returncode is None, fleet.streamer.log
        fleet.streamer.stop()
        shutil.copytree(folder, tmp_path / "backup")
        fleet.broker.start()
        fleet.broker.wait_for("listening on")
        sample_once(fleet)
        arrived = readings_in_log(fleet)
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "backup", folder)
        new = sample_once(fleet)
        assert 0 < readings_in_log(fleet) - arrived <= new
    finally:
        fleet.kill_all()


@pytest.mark.acceptance
def test_two_machines_with_one_spool_both_get_their_readings_stored(fleet: Fleet, tmp_path: Path) -> None:
    clone = Fleet(
        tmp_path / "clone", SOURCE="simulate", SIM_HOSTS=HOSTS, SIM_GPUS_PER_HOST=GPUS, BATCH_SIZE=10, INSTANCE_ID="s1"
    )
    clone.environ["MQ_PORT"] = str(fleet.port)
    try:
        fleet.broker.start()
        fleet.broker.wait_for("listening on")
        expected = sample_once(fleet)
        shutil.copytree(fleet.state_dir / "spool", clone.state_dir / "spool")
        for each in (fleet, clone, fleet, clone):
            expected += sample_once(each)
        assert readings_in_log(fleet) == expected
    finally:
        fleet.kill_all()
        clone.kill_all()
