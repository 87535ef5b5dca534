from __future__ import annotations

import errno
from pathlib import Path

import pytest

from broker.log.identity import IDENTITY_NAME, LogIdentity
from broker.log.log import Log, LogConfig
from tests.broker.logs import FaultyDisk


def test_a_log_keeps_its_identity_and_another_has_another(tmp_path: Path) -> None:
    ids = []
    for name in ("one", "one", "two"):
        log = Log.open(tmp_path / name, LogConfig())
        ids.append(log.identity.id)
        log.close()
    assert ids[0] == ids[1] != ids[2]
    assert len(ids[0]) == 16


def test_it_is_renewed_once_in_a_run(tmp_path: Path) -> None:
    log = Log.open(tmp_path, LogConfig())
    before = log.identity.id
    log.identity.renew()
    renewed = log.identity.id
    log.identity.renew()
    assert before != renewed == log.identity.id
    log.tick()
    log.close()
    log = Log.open(tmp_path, LogConfig())
    assert log.identity.id == renewed
    log.close()


def test_one_that_cannot_be_saved_is_saved_later(tmp_path: Path) -> None:
    disk = FaultyDisk()
    disk.failing["replace"] = errno.ENOSPC
    identity = LogIdentity(tmp_path, disk)
    with pytest.raises(OSError, match="No space"):
        identity.save()
    disk.failing.clear()
    identity.save()
    assert LogIdentity(tmp_path, disk).id == identity.id
    (tmp_path / IDENTITY_NAME).write_text("damaged")
    assert LogIdentity(tmp_path, disk).id != identity.id
