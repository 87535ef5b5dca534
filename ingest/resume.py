"""Where a streamer goes on after a restart: how far into which file everything was answered, and by how much it shifts.

One small JSON file per streamer and capture under STATE_DIR/resume, replaced as a whole. It names the file by more than its
path, so that a capture that was replaced meanwhile is streamed from its start.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from pathlib import Path
from typing import Protocol

import msgspec

from ingest.errors import StateError
from ingest.unpacked import is_packed

logger = logging.getLogger(__name__)

HEAD_BYTES = 64 * 1024
TAIL_BYTES = 4 * 1024


class HasDescriptor(Protocol):
    """An open file."""

    def fileno(self) -> int:
        """Its descriptor."""


class FileId(msgspec.Struct, frozen=True):
    """Which file it was: its inode, and digests of its first bytes and of those just before the position."""

    inode: int
    head: str
    tail: str

    @classmethod
    def of(cls, file: HasDescriptor, position: int) -> FileId:
        """Identify an open file that was read up to ``position``. Uses positioned reads only. Raises OSError."""
        descriptor = file.fileno()
        if is_packed(file):  # the position is none of the file's own: it is known by its size and its beginning
            size = os.fstat(descriptor).st_size
            return cls(
                os.fstat(descriptor).st_ino, digest_of(os.pread(descriptor, HEAD_BYTES, 0)), digest_of(b"%d" % size)
            )
        head = os.pread(descriptor, min(HEAD_BYTES, position), 0)
        start = max(0, position - TAIL_BYTES)
        tail = os.pread(descriptor, position - start, start)
        return cls(os.fstat(descriptor).st_ino, digest_of(head), digest_of(tail))


class ResumeState(msgspec.Struct, frozen=True):
    """All before byte ``position`` was answered; ``line`` is the number of the line there. ``shift_ns`` is added to times."""

    path: str
    file: FileId
    position: int
    line: int
    timestamps: str
    shift_ns: int

    @classmethod
    def at(
        cls, path: str, file: HasDescriptor, *, position: int, line: int, timestamps: str, shift_ns: int
    ) -> ResumeState:
        """The state of a run that came to ``position`` of an open file. Raises OSError."""
        return cls(_shown(path), FileId.of(file, position), position, line, timestamps, shift_ns)

    def fits(self, path: str, file: HasDescriptor, timestamps: str) -> bool:
        """Whether it speaks of this file, still with the same beginning, and of the same wish for times. Raises OSError."""
        return (
            self.path == _shown(path)
            and self.timestamps == timestamps
            and (is_packed(file) or 0 <= self.position <= os.fstat(file.fileno()).st_size)
            and self.file == FileId.of(file, self.position)
        )


class ResumeStore:
    """The file that keeps one ResumeState."""

    def __init__(self, state_dir: Path, instance_id: str, source: str) -> None:
        digest = hashlib.sha256(os.fsencode(os.path.abspath(source))).hexdigest()[:16]
        self.path = state_dir / "resume" / f"{instance_id}-{digest}.json"

    def prepare(self) -> None:
        """Make the folder and try whether it can be written. Raises StateError."""
        probe = self.path.with_suffix(f".{os.getpid()}.probe")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise self._error(error) from error

    def load(self) -> ResumeState | None:
        """What was saved, or None. A file that cannot be understood counts as none and is said in the log."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=ResumeState)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(error) from error
        except (ValueError, RecursionError) as error:
            logger.warning(
                "the resume position in %s is not usable (%s): starting from the beginning", self.path, error
            )
            return None

    def save(self, state: ResumeState) -> None:
        """Replace what was saved: after a crash either the old or the new state is there, whole. Raises StateError."""
        draft = self.path.with_suffix(f".{os.getpid()}.draft")
        try:
            with open(draft, "wb") as file:
                file.write(msgspec.json.encode(state))
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise self._error(error) from error

    def saved_ns(self) -> int:
        """When it was saved last, 0 where it is not there."""
        try:
            return self.path.stat().st_mtime_ns
        except OSError:
            return 0

    def clear(self) -> None:
        """Forget the position: the run is done. Raises StateError."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> StateError:
        return StateError(f"STATE_DIR (--state-dir): cannot keep the resume position in {self.path}: {error.strerror}")


def _shown(path: str) -> str:
    """An absolute path that JSON can hold, whatever bytes the name is of."""
    return os.path.abspath(path).encode("utf-8", "backslashreplace").decode()


def digest_of(data: bytes) -> str:
    """What FileId knows bytes by."""
    return hashlib.sha256(data).hexdigest()[:32]
