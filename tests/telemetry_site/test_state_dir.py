"""State is for its owner, or for the group that a volume was given to; never for other users."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry_site.env import SettingError
from telemetry_site.state_dir import keep_file_private, keep_folder_private
from tests.ingest.processes import Fleet, Service

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def same_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_and_what_is_written_later_is_the_owners_alone(tmp_path: Path) -> None:
    state = tmp_path / "new" / "state"
    keep_folder_private(state)
    (state / "file").write_text("")
    (state / "folder").mkdir()
    assert (mode(state), mode(state / "file"), mode(state / "folder")) == (0o700, 0o600, 0o700)


def test_existing_state_is_taken_from_others_and_other_files_are_left(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for folder in ("broker/segments", "mine"):
        (state / folder).mkdir(parents=True)
    for name in ("inventory.sqlite3", "inventory.sqlite3-wal", "broker/segments/0.log", "mine/notes.txt"):
        (state / name).write_text("")
        (state / name).chmod(0o644)
    state.chmod(0o755)
    keep_folder_private(state)
    assert mode(state) == 0o700
    for name in ("inventory.sqlite3", "inventory.sqlite3-wal", "broker/segments/0.log"):
        assert mode(state / name) == 0o640, name
    assert mode(state / "broker") & 0o007 == 0
    assert mode(state / "mine/notes.txt") == 0o644


def test_a_volume_that_was_given_to_a_group_stays_the_groups(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o2775)
    keep_folder_private(state)
    (state / "file").write_text("")
    assert (mode(state), mode(state / "file")) == (0o2770, 0o660)


def test_a_file_outside_the_folder_is_taken_from_others_with_its_companions(tmp_path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        (tmp_path / f"fleet.db{end}").touch()
        (tmp_path / f"fleet.db{end}").chmod(0o644)
    keep_file_private(tmp_path / "fleet.db")
    assert {mode(path) for path in tmp_path.iterdir()} == {0o640}
    keep_file_private(tmp_path / "none.db")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    target.chmod(0o644)
    state = tmp_path / "state"
    state.mkdir()
    (state / "inventory.sqlite3").symlink_to(target)
    keep_folder_private(state)
    assert mode(target) == 0o644


def test_a_folder_that_every_user_may_write_to_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "tmp"
    state.mkdir()
    state.chmod(0o1777)
    with pytest.raises(SettingError, match=r"every user may write to .*: use a folder of its own in it"):
        keep_folder_private(state)
    assert mode(state) == 0o1777


AS_NOBODY = """
import os, sys
from pathlib import Path
from telemetry_site.env import SettingError
from telemetry_site.state_dir import keep_folder_private
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    keep_folder_private(Path(sys.argv[1]))
except SettingError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's file")
def test_another_users_file_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "inventory.sqlite3").write_text("")
    (state / "inventory.sqlite3").chmod(0o644)
    for parent in (state, tmp_path, *tmp_path.parents[:3]):  # pytest keeps these to their owner; a worker has one more
        parent.chmod(parent.stat().st_mode | 0o055)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(state)], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert "chmod o-rwx" in done.stdout, done.stderr
    assert "inventory.sqlite3" in done.stdout


@pytest.mark.acceptance
def test_what_the_services_write_is_closed_to_others(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "state", PORT="0", SOURCE="simulate", SIM_HOSTS="1", SQLITE_PATH=tmp_path / "own.sqlite3")
    services = [fleet.broker, fleet.collector, Service("web", fleet, "serve")]
    try:
        for service in services:
            service.start()
        services[2].wait_for("Booting worker")
        fleet.streamer.start("--once")
        assert fleet.streamer.wait() == 0
        fleet.collector.wait_for("reading from offset")
        paths = [tmp_path / "own.sqlite3", *(tmp_path / "state").rglob("*")]
        written = [path for path in paths if path.suffix != ".output"]  # the test's own
        assert len(written) > 5
        assert [path for path in written if mode(path) & 0o077] == []
    finally:
        for service in (*services, fleet.streamer):
            service.kill()
