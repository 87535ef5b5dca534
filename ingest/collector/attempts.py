"""Which message a collector had in hand when its process was killed, so that none can stop it for ever.

A small file in STATE_DIR says where a run began and is removed when it ends in order. A run that begins where the last one
was killed is careful for a while: it takes one message at a time to its commit and notes each before it begins it. All other
runs write the file once at the start and once after their first commit, and nothing for a message.

A kill leaves what was written to the kernel, so no fsync is needed.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from broker.client.client import Message

logger = logging.getLogger(__name__)

# A message that was begun so often without a commit is not begun again.
MOST_BEGUN = 3
CAREFUL_MESSAGES = 1000
_NOWHERE = -1


class Note(msgspec.Struct, omit_defaults=True):
    """The file. Runs before this one were killed ``killed`` times here; in a careful run ``message_id`` was begun ``begun`` times."""

    offset: int = _NOWHERE
    message_id: str = ""
    killed: int = 0
    begun: int = 0


class Attempts:
    """The notes of one collector. Never raises: where the file cannot be written, one line says so."""

    def __init__(self, state_dir: Path, collector_id: str) -> None:
        self.path = state_dir / f"collector-{collector_id}.attempts.json"
        self._last = Note()  # of the run before, until this run is past its message
        self._killed = 0
        self._careful = 0
        self._noted_commit = True
        self._failing = False

    @property
    def careful(self) -> bool:
        """Whether messages are taken one at a time."""
        return self._careful > 0

    def begin_run(self, offset: int) -> None:
        """This run begins with the message at ``offset``."""
        last = self._read()
        if last is not None:
            self._last = last
            here = last.offset == offset
            self._killed = min(last.killed + (not last.begun), MOST_BEGUN - 1) if here else 1
            if here:
                self._careful = CAREFUL_MESSAGES
                logger.warning(
                    "the last run was killed before it committed offset %d: taking up to %d messages one at a time",
                    offset,
                    CAREFUL_MESSAGES,
                )
        self._noted_commit = False
        if not self.careful:
            self._write(Note(offset, killed=self._killed))

    def is_hopeless(self, message: Message) -> bool:
        """Notes that a careful run begins this message. Whether it was begun MOST_BEGUN times before, so that it must not be."""
        if not self.careful:
            return False
        last, self._last = self._last, Note()
        is_same = (last.offset, last.message_id) == (message.offset, message.message_id)
        begun = last.begun if is_same else 0
        if begun and begun + self._killed >= MOST_BEGUN:
            self._killed = 0  # it was this one
            return True
        self._write(Note(message.offset, message.message_id, self._killed, begun + 1))
        return False

    def forgive(self) -> None:
        """The run waits for the store or the database: if it is killed now, that is not for the message in hand."""
        if self.careful:
            self._write(Note())

    def committed(self) -> None:
        """A commit was made."""
        if self._careful > 1:
            self._careful -= 1
            return
        if self._careful:
            self._careful = 0
            logger.info("no message has stopped this run: taking many at a time again")
        if not self._noted_commit:
            self._noted_commit = True
            self._write(Note())

    def end_run(self) -> None:
        """The run ends in order."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            self._fail(error)

    def _read(self) -> Note | None:
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Note)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError):
            return Note()

    def _write(self, note: Note) -> None:
        draft = self.path.with_suffix(".draft")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(msgspec.json.encode(note))
            os.replace(draft, self.path)
        except OSError as error:
            self._fail(error)
        else:
            self._failing = False

    def _fail(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            logger.error("cannot note in %s which message is in hand: %s", self.path, error.strerror)
