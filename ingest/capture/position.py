"""The position from which a streamer goes on after a restart: the file, how much of it was answered, and the time shift.

It is one small JSON file per streamer and capture under STATE_DIR/resume, replaced as a whole. It identifies the capture by
more than its path, so a capture that was replaced meanwhile is streamed from its start.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from ingest.atomic import replacing
from ingest.capture.compression import PeekableFile, is_packed
from ingest.errors import StateError

logger = logging.getLogger(__name__)


class SourcePosition(NamedTuple):
    """A byte and line of a source, and by how much the times before it were shifted."""

    position: int
    line: int
    shift_ns: int


class Positions:
    """Saves ``reached``, the position up to which every batch is answered; it never passes a row whose batch is not.

    ``state_at`` gives the state from which a later run goes on at a position; None for a source that cannot be read again.
    """

    def __init__(self, store: ResumeStore, state_at: Callable[[SourcePosition], ResumeState | None]) -> None:
        self.reached: SourcePosition | None = None
        self._store = store
        self._state_at = state_at
        self._answered = 0
        self._open: deque[tuple[int, SourcePosition]] = deque()
        self._moved = asyncio.Event()
        # A save goes on in its thread when its task is cancelled: it must not come after the last word.
        self._lock = threading.Lock()
        self._finished = False
        self._failing = False

    def add(self, last_number: int, position: SourcePosition) -> None:
        """The batches up to ``last_number`` hold everything before ``position``."""
        self._open.append((last_number, position))
        self.answered(self._answered)

    def answered(self, number: int) -> None:
        """All batches up to ``number`` are answered."""
        self._answered = number
        while self._open and self._open[0][0] <= number:
            self.reached = self._open.popleft()[1]
            self._moved.set()

    async def keep(self) -> None:
        """Save the position whenever it has moved, until cancelled. Logs a full disk once and goes on."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            try:
                await asyncio.to_thread(self._save)
            except StateError as error:
                if not self._failing:
                    logger.error("%s: until that is mended, a restart sends more than needed", error)
                self._failing = True
            else:
                self._failing = False

    def finish(self, *, done: bool) -> None:
        """End saving: clear the position when the run is done, else save it once more. Raises StateError."""
        try:
            if done:
                with self._lock:
                    self._finished = True
                    self._store.clear()
            else:
                self._save()
        finally:
            self._finished = True

    def _save(self) -> None:
        with self._lock:
            if self.reached is None or self._finished:
                return
            state = self._state_at(self.reached)
            if state is not None:
                self._store.save(state)


_HEAD_BYTES = 64 * 1024
_TAIL_BYTES = 4 * 1024


class FileId(msgspec.Struct, frozen=True):
    """Identifies a file: its inode, and digests of its first bytes and of the bytes just before the position."""

    inode: int
    head: str
    tail: str

    @classmethod
    def of(cls, file: PeekableFile | BinaryIO, position: int) -> FileId:
        """Identify an open file that was read up to ``position``. Uses positioned reads only. Raises OSError."""
        descriptor = file.fileno()
        status = os.fstat(descriptor)
        if is_packed(file):  # the position is not one on disk: the size and the beginning identify the file
            head, tail = os.pread(descriptor, _HEAD_BYTES, 0), b"%d" % status.st_size
        else:
            head = os.pread(descriptor, min(_HEAD_BYTES, position), 0)
            start = max(0, position - _TAIL_BYTES)
            tail = os.pread(descriptor, position - start, start)
        return cls(status.st_ino, _digest(head), _digest(tail))


class ResumeState(msgspec.Struct, frozen=True):
    """Everything before byte ``position``, where line ``line`` begins, was answered. ``shift_ns`` is added to times."""

    path: str
    file: FileId
    position: int
    line: int
    timestamps: str
    shift_ns: int

    @classmethod
    def at(cls, path: str, file: PeekableFile | BinaryIO, reached: SourcePosition, timestamps: str) -> ResumeState:
        """The state of a run that reached a position of an open file. Raises OSError."""
        position, line, shift_ns = reached
        return cls(_shown(path), FileId.of(file, position), position, line, timestamps, shift_ns)

    def fits(self, path: str, file: PeekableFile | BinaryIO, timestamps: str) -> bool:
        """Whether it describes this file, with the same beginning, and the same TIMESTAMPS. Raises OSError."""
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
        """Create the folder and check that it can be written. Raises StateError."""
        probe = self.path.with_suffix(f".{os.getpid()}.probe")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise self._error(error) from error

    def load(self) -> ResumeState | None:
        """The saved state, or None. A file that cannot be decoded is logged and counts as none."""
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
        """Replace the saved state: after a crash either the old or the new one is there, whole. Raises StateError."""
        try:
            with replacing(self.path) as file:
                file.write(msgspec.json.encode(state))
        except OSError as error:
            raise self._error(error) from error

    def clear(self) -> None:
        """Forget the position: the run is done. Raises StateError."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> StateError:
        return StateError(f"STATE_DIR (--state-dir): cannot keep the resume position in {self.path}: {error.strerror}")


def _shown(path: str) -> str:
    """An absolute path that JSON can hold, whatever bytes are in the name."""
    return os.path.abspath(path).encode("utf-8", "backslashreplace").decode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
