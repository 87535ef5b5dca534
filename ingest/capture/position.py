"""Where a streamer goes on after a restart: how far into which file everything was answered, and by how much it shifts.

One small JSON file per streamer and capture under STATE_DIR/resume, replaced as a whole. It names the file by more than its
path, so that a capture that was replaced meanwhile is streamed from its start.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from ingest.atomic import replacing
from ingest.capture.compression import is_packed
from ingest.errors import StateError

if TYPE_CHECKING:
    from ingest.capture.source import CsvSource  # numpy and pyarrow: nothing for a live source


logger = logging.getLogger(__name__)


class SourcePosition(NamedTuple):
    """A byte and line of a source, and by how much the times before it were shifted."""

    position: int
    line: int
    shift_ns: int


class Positions:
    """Keeps the position up to which every batch is answered; it never passes a row whose batch is not."""

    def __init__(self, store: ResumeStore, source: CsvSource, timestamps: str) -> None:
        self._store = store
        self._source = source
        self._timestamps = timestamps
        self._answered = 0
        self._open: deque[tuple[int, SourcePosition]] = deque()
        self._reached: SourcePosition | None = None
        self._moved = asyncio.Event()
        # A save goes on in its thread when its task is cancelled: it must not come after the last word.
        self._lock = threading.Lock()
        self._finished = False
        self._failing = False

    @property
    def reached(self) -> SourcePosition | None:
        """The last position before which everything is answered."""
        return self._reached

    def add(self, last_number: int, position: SourcePosition) -> None:
        """The batches up to ``last_number`` hold everything before ``position``."""
        self._open.append((last_number, position))
        self.answered(self._answered)

    def answered(self, number: int) -> None:
        """All batches up to ``number`` are answered."""
        self._answered = number
        while self._open and self._open[0][0] <= number:
            self._reached = self._open.popleft()[1]
            self._moved.set()

    async def keep(self) -> None:
        """Save the position whenever it has moved, until cancelled. A disk that is full is said once and costs nothing else."""
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
        """The last word: forget the position when the run is done, else keep where it came to. Raises StateError."""
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
            reached = self._reached
            if reached is None or self._finished or not self._source.can_resume:
                return
            self._store.save(
                self._source.state_at(
                    position=reached.position,
                    line=reached.line,
                    timestamps=self._timestamps,
                    shift_ns=reached.shift_ns,
                )
            )


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
        try:
            with replacing(self.path) as file:
                file.write(msgspec.json.encode(state))
        except OSError as error:
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
