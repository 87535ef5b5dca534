"""Keeps the state folder from other users of the machine: it holds the signing key, sessions and passwords' hashes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from telemetry_site.env import SettingError

OTHERS = stat.S_IRWXO
GROUP = stat.S_IRWXG
# What the services keep in the folder. Anything else in it is somebody's own.
OURS = ("secret_key", "*.sqlite3", "*.sqlite3-*", "broker", "spool", "resume", "dead-letters")


def keep_folder_private(state_dir: Path) -> None:
    """Makes the folder, sets the process's umask, and takes from other users what they may do with state in it.

    The folder's group keeps its rights where the folder was given to a group: with a set-group-ID bit, as Kubernetes sets
    for fsGroup, or where the folder is another user's and our group may write in it. Raises SettingError where the folder
    is everybody's (as /tmp), or has state of another user that everybody may read.
    """
    os.umask(OTHERS | GROUP)
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = state_dir.stat()
        own = status.st_uid == os.geteuid()
        if status.st_mode & stat.S_IWOTH and (status.st_mode & stat.S_ISVTX or not own):
            raise SettingError(
                f"STATE_DIR (--state-dir): every user may write to {str(state_dir)!r}: use a folder of its own in it"
            )
        taken = OTHERS if _is_shared(status) else OTHERS | GROUP
        os.umask(taken)
        # The root of a mounted volume may be another user's. The files in it are ours.
        if own and status.st_mode & taken:
            state_dir.chmod(stat.S_IMODE(status.st_mode) & ~taken)
        for path in _state(state_dir):
            _take_from_others(path)
    except OSError:
        return  # a folder that cannot be made, or not be read, is an error for whoever needs it


def keep_file_private(path: Path) -> None:
    """Takes from other users what they may do with a SQLite file, wherever it is. Raises SettingError as above."""
    for each in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        _take_from_others(each)


def _is_shared(status: os.stat_result) -> bool:
    """Whether a group shares the folder on purpose."""
    if status.st_mode & GROUP != GROUP:
        return False
    ours = status.st_gid in {os.getegid(), *os.getgroups()}
    return bool(status.st_mode & stat.S_ISGID) or (ours and status.st_uid != os.geteuid())


def _state(folder: Path) -> Iterator[Path]:
    for pattern in OURS:
        for path in folder.glob(pattern):
            yield path
            if path.is_dir() and not path.is_symlink():
                yield from path.rglob("*")


def _take_from_others(path: Path) -> None:
    with suppress(FileNotFoundError, NotADirectoryError):  # a draft, or a segment that another service has just dropped
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode) or not status.st_mode & OTHERS:
            return
        try:
            path.chmod(stat.S_IMODE(status.st_mode) & ~OTHERS)
        except PermissionError:
            raise SettingError(
                f"every user may read {str(path)!r}, which holds state and belongs to another user: run chmod o-rwx on it"
            ) from None
