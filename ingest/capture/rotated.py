"""Where a file went that was rotated away: ``name.csv`` is found again as ``name.csv.1``, ``name-20250718.csv.gz`` and the like.

A file is known by its inode, which a rename keeps; a copy or a compressed one by what is in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ingest.capture.compression import is_packed, is_truncated, open_capture
from ingest.capture.position import HEAD_BYTES, TAIL_BYTES, FileId, ResumeState, digest_of
from ingest.errors import SourceError

_PACKED = (".gz", ".zst")
_STEP = 1 << 20


class Sibling(NamedTuple):
    """A file beside the one that is followed."""

    path: str
    inode: int
    mtime_ns: int

    @property
    def name(self) -> str:
        """Its name without what compressing adds."""
        name = os.path.basename(self.path)
        return name[: -len(Path(name).suffix)] if name.endswith(_PACKED) else name


def find_rotated(path: str, state: ResumeState, saved_ns: int) -> Sibling | None:
    """The file that ``state`` (of ``path``, saved at ``saved_ns``) speaks of, under the name it has now. Raises SourceError."""
    siblings = list(_siblings(path))
    stem = os.path.basename(path).split(".")[0]
    # Of several that begin alike, as all do before anything was read, the one that was written last then is the likeliest.
    siblings.sort(key=lambda each: (each.path.endswith(_PACKED), each.mtime_ns < saved_ns, each.mtime_ns))
    same = [each for each in siblings if each.inode == state.file.inode]
    alike = [
        each for each in siblings if each.inode != state.file.inode and os.path.basename(each.path).startswith(stem)
    ]
    return next((each for each in (*same, *alike) if _is_of(each.path, state)), None)


def next_rotated(path: str, last: Sibling) -> Sibling | None:
    """The file that came to ``path`` after ``last`` was there and was rotated away as well; None: it is there now.

    Only names that differ from that of ``last`` in their digits count. Raises SourceError.
    """
    family = _family(last.name)
    later = [
        each
        for each in _siblings(path)
        if each.mtime_ns > last.mtime_ns and each.inode != last.inode and _family(each.name) == family
    ]
    # While it is being compressed a file is there twice.
    later.sort(key=lambda each: (each.mtime_ns, each.path.endswith(_PACKED)))
    return later[0] if later else None


def sibling_of(path: str, inode: int) -> Sibling | None:
    """The file with this inode in the folder of ``path``, which it had. Raises SourceError."""
    return next((each for each in _siblings(path) if each.inode == inode), None)


def is_whole(path: str) -> bool:
    """Whether a compressed file ends where it should. Any other counts as whole, also one that cannot be read."""
    try:
        with open_capture(path) as file:
            while is_packed(file) and file.read(_STEP):
                pass
            return not is_truncated(file)
    except OSError:
        return True


def _siblings(path: str) -> Iterator[Sibling]:
    try:
        with os.scandir(os.path.dirname(path) or ".") as entries:
            for entry in entries:
                if entry.name != os.path.basename(path) and entry.is_file():
                    status = entry.stat()
                    yield Sibling(entry.path, status.st_ino, status.st_mtime_ns)
    except OSError as error:
        raise SourceError(f"{path!r}: cannot look beside it: {error.strerror}") from error


def _family(name: str) -> str:
    return re.sub("[0-9]+", "0", name)


def _is_of(path: str, state: ResumeState) -> bool:
    try:
        with open_capture(path) as file:
            return _fits(file, state)
    except OSError:
        return False  # gone meanwhile, or not ours to read


def _fits(file: BinaryIO, state: ResumeState) -> bool:
    found = FileId.of(file, state.position)
    if is_packed(file):
        return found == state.file or _digests(file, state.position) == (state.file.head, state.file.tail)
    return os.fstat(file.fileno()).st_size >= state.position and (found.head, found.tail) == (
        state.file.head,
        state.file.tail,
    )


def _digests(file: BinaryIO, position: int) -> tuple[str, str] | None:
    """Of what is in a compressed file, what FileId has of a plain one; None where it is too short."""
    start = max(0, position - TAIL_BYTES)
    text = file.read(min(HEAD_BYTES, position))
    head = digest_of(text)
    at = len(text)
    while at < start:
        skipped = len(file.read(min(_STEP, start - at)))
        if not skipped:
            return None
        at += skipped
    tail = text[start:] + file.read(position - at)
    return (head, digest_of(tail)) if at + len(tail) - len(text[start:]) == position else None
