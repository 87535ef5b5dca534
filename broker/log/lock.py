"""One broker per directory: a lock that the operating system takes back when its holder is gone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path

from broker.errors import LogLocked
from broker.log.disk import FILE_MODE

LOCK_NAME = ".lock"


class DirectoryLock:
    """Holds the directory until ``release`` or the end of the process, kill -9 too."""

    def __init__(self, directory: Path) -> None:
        """Takes the lock. Raises LogLocked, which names the holder, or OSError."""
        self.path = directory / LOCK_NAME
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._holder()
            os.close(self._fd)
            raise LogLocked(f"{directory} is in use by another broker ({holder})") from None
        # Only for the other one's message: a full disk must not keep a broker from serving what it has.
        with contextlib.suppress(OSError):
            self._sign()

    def is_ours(self) -> bool:
        """Whether the path still names the file that is locked; if not, another broker may have the directory."""
        try:
            there = os.stat(self.path)
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._fd))

    def release(self) -> None:
        """Gives the directory back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _sign(self) -> None:
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        told = {"pid": os.getpid(), "host": os.uname().nodename, "started": started}
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(told).encode(), 0)

    def _holder(self) -> str:
        try:
            told = json.loads(os.pread(self._fd, 4096, 0))
            return f"process {told['pid']} on {told['host']} since {told['started']}"
        except (OSError, ValueError, TypeError, KeyError):
            return "which has not said who it is"
