"""Dead letters: refused readings, rows and messages, one JSON object a line, in files that are rotated by size.

They are an aid, not a promise: when they cannot be written, one log line says so and the pipeline goes on.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import RawIOBase
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 16 << 20
FILES_KEPT = 4
MAX_TEXT = 256 * 1024


class DeadLetters:
    """Appends to ``STATE_DIR/dead-letters/NAME.ndjson``; full files become NAME.1.ndjson (the newest) and so on.

    Safe to call from several threads. Never raises for a disk that is full or not writable.
    """

    def __init__(
        self, state_dir: Path, name: str, *, max_bytes: int = MAX_FILE_BYTES, files_kept: int = FILES_KEPT
    ) -> None:
        self.path = state_dir / "dead-letters" / f"{name}.ndjson"
        self._max_bytes = max_bytes
        self._files_kept = files_kept
        self._lock = threading.Lock()
        self._failing = False

    def write(self, letters: Iterable[dict[str, Any]]) -> bool:
        """Append the letters in one write; returns whether that worked."""
        lines = b"".join(_encode(letter) + b"\n" for letter in letters)
        if not lines:
            return True
        with self._lock:
            try:
                self._append(lines)
            except OSError as error:
                if not self._failing:
                    self._failing = True
                    logger.error("cannot write dead letters to %s: %s", self.path, error.strerror)
                return False
            if self._failing:
                self._failing = False
                logger.info("writing dead letters to %s again", self.path)
            return True

    def _append(self, lines: bytes) -> None:
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            size = 0
        if size and size + len(lines) > self._max_bytes:
            self._rotate()
        with open(self.path, "a+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                lines = b"\n" + lines  # a crash tore the last line: it must not take the next one with it
            try:
                _write_all(file, lines)
            except OSError:
                with suppress(OSError):
                    file.truncate(size)
                raise

    def _rotate(self) -> None:
        numbers = range(1, self._files_kept + 1)
        files = [self.path, *(self.path.with_name(f"{self.path.stem}.{each}{self.path.suffix}") for each in numbers)]
        for newer, older in reversed(list(pairwise(files))):
            if newer.exists():
                os.replace(newer, older)


def _write_all(file: RawIOBase, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) or 0 :]


def _encode(letter: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(letter)
    except ValueError:  # not Unicode, as a file name may be
        return json.dumps(letter).encode()


def shorten(text: str) -> str:
    """Cut a text off at MAX_TEXT characters."""
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


class Letter(NamedTuple):
    """One dead letter, and the file that holds it."""

    file: Path
    fields: dict[str, Any]

    @property
    def reason(self) -> str:
        return str(self.fields.get("reason", ""))

    @property
    def source(self) -> str:
        return str(self.fields.get("source") or self.fields.get("gpu") or "")


def letter_files(state_dir: Path) -> list[Path]:
    """All dead-letter files, each writer's oldest first."""
    files = (state_dir / "dead-letters").glob("*.ndjson")
    return sorted(files, key=lambda path: (path.stat().st_mtime, path.name))


def read_letters(
    files: Iterable[Path], reason: str = "", torn: Callable[[Path], None] = lambda path: None
) -> Iterator[Letter]:
    """The letters in these files, only those with ``reason`` if one is given. Calls ``torn`` for each line that is no letter."""
    for path in files:
        with path.open("rb") as file:
            for line in file:
                try:
                    fields = json.loads(line)
                except (ValueError, RecursionError):  # the line was cut off
                    fields = None
                if not isinstance(fields, dict):
                    if line.strip():
                        torn(path)
                    continue
                letter = Letter(path, fields)
                if not reason or letter.reason == reason:
                    yield letter
