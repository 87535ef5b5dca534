from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from telemetry_site.env import SettingError
from telemetry_site.secret_key import load_or_make_secret_key

ROOT = Path(__file__).resolve().parents[2]


def test_the_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    state = tmp_path / "new" / "state"
    key = load_or_make_secret_key(state)
    assert len(key) >= 50
    assert load_or_make_secret_key(state) == key
    assert (state / "secret_key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in state.iterdir()] == ["secret_key"]


def test_services_that_start_together_agree_on_the_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(lambda _: load_or_make_secret_key(tmp_path), range(64)))) == 1


def test_a_state_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match=r"STATE_DIR.*cannot keep state in .*file"):
        load_or_make_secret_key(tmp_path / "file")


@pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe"])
def test_a_damaged_key_is_an_error_and_not_a_weak_key(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret_key").write_bytes(content)
    with pytest.raises(SettingError, match="STATE_DIR"):
        load_or_make_secret_key(tmp_path)


# Root may write anywhere, so the check runs as nobody where the tests run as root. Imports come first: nobody may not be
# allowed to read the interpreter's own folders.
AS_NOBODY = """
import os, sys
from pathlib import Path
from telemetry_site.env import SettingError
from telemetry_site.secret_key import load_or_make_secret_key
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    load_or_make_secret_key(Path(sys.argv[1]))
except SettingError as error:
    print(error)
"""


@pytest.mark.parametrize("mode", [0o000, 0o555])
def test_a_state_folder_that_may_not_be_written_is_named(tmp_path: Path, mode: int) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(mode)
    for parent in (tmp_path, *tmp_path.parents[:3]):  # pytest keeps these to their owner; a worker has one more
        parent.chmod(parent.stat().st_mode | 0o011)
    run = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(state)], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    state.chmod(0o755)
    assert run.stdout == f"STATE_DIR (--state-dir): cannot keep state in {str(state)!r}: Permission denied\n", (
        run.stderr
    )
