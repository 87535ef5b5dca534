from __future__ import annotations

from pathlib import Path

from broker.log.disk import Disk
from broker.log.recovery import CHECKPOINT_NAME, Checkpoint
from tests.broker.logs import PRODUCER, flip


def _checkpoint() -> Checkpoint:
    return Checkpoint(
        segment=100,
        position=5000,
        next_offset=120,
        last_timestamp=1_700_000_000_000,
        clean=True,
        marks=[(100, 0, 1_700_000_000_000)],
        gaps=[(103, 104)],
        producers=[(PRODUCER, 3, 1_700_000_000_000, [(3, 100, 20)])],
    )


def test_it_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    assert Checkpoint.load(tmp_path) is None
    _checkpoint().save(Disk(), tmp_path)
    assert Checkpoint.load(tmp_path) == _checkpoint()


def test_a_damaged_one_is_none(tmp_path: Path) -> None:
    _checkpoint().save(Disk(), tmp_path)
    flip(tmp_path / CHECKPOINT_NAME, 30)
    assert Checkpoint.load(tmp_path) is None
