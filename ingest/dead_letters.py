"""Dead letters: what was turned away, one JSON object a line, in files that are rotated by size.

They are a help for people, not part of the promise: when they cannot be written that is said once, and the pipeline goes on.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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
        """Append the letters in one write; says whether they are on file."""
        lines = b"".join(_encode(letter) + b"\n" for letter in letters)
        if not lines:
            return True
        with self._lock:
            try:
                self._append(lines)
            except OSError as error:
                if not self._failing:
                    self._failing = True
                    logger.error("dead letters cannot be kept in %s: %s", self.path, error.strerror)
                return False
            if self._failing:
                self._failing = False
                logger.info("dead letters are kept in %s again", self.path)
            return True

    def _append(self, lines: bytes) -> None:
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            size = 0
        if size and size + len(lines) > self._max_bytes:
            self._rotate()
        with open(self.path, "ab") as file:
            file.write(lines)

    def _rotate(self) -> None:
        for number in range(self._files_kept, 0, -1):
            older = self._numbered(number)
            newer = self._numbered(number - 1) if number > 1 else self.path
            if newer.exists():
                os.replace(newer, older)

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.stem}.{number}{self.path.suffix}")


def _encode(letter: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(letter)
    except ValueError:  # text that is no Unicode, as a file's name may be
        return json.dumps(letter).encode()


def shorten(text: str) -> str:
    """A text as a dead letter keeps it: whole, unless it is very long."""
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
