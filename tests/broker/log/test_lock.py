from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from broker.errors import LogLocked
from broker.log.lock import DirectoryLock


def test_a_second_holder_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    with pytest.raises(LogLocked) as caught:
        DirectoryLock(tmp_path)
    assert f"process {os.getpid()} on {socket.gethostname()} since 20" in str(caught.value)
    lock.release()
    lock.release()
    DirectoryLock(tmp_path).release()


@pytest.mark.parametrize("text", ["", "what?", "[]", '{"pid": 1}'])
def test_a_holder_that_has_not_signed_is_refused_all_the_same(tmp_path: Path, text: str) -> None:
    lock = DirectoryLock(tmp_path)
    lock.path.write_text(text)
    with pytest.raises(LogLocked, match="has not said who it is"):
        DirectoryLock(tmp_path)
    lock.release()


def test_what_a_dead_holder_left_behind_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text('{"pid": 123456789, "host": "elsewhere", "started": "long ago", "more": "…"}')
    lock = DirectoryLock(tmp_path)
    assert f'"pid": {os.getpid()},' in lock.path.read_text()
    assert "elsewhere" not in lock.path.read_text()
    lock.release()


def test_it_knows_that_its_file_was_taken_away(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    assert lock.is_ours()
    lock.path.unlink()
    assert not lock.is_ours()
    other = DirectoryLock(tmp_path)
    assert other.is_ours()
    assert not lock.is_ours()
    lock.release()
    other.release()
