"""A log's identity: 16 random hex digits in a file of its folder.

It is made with the folder. A copy of the folder has the same one, until a subscriber notices that the log is not the one it read; then
the log gets a new one. The file may be lost: a new identity costs subscribers a second look at what they have.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec

from broker.log.disk import Disk, load_side_file, save_side_file

IDENTITY_NAME = "identity"


class _Identity(msgspec.Struct):
    id: str


class LogIdentity:
    """The identity of the log in one folder."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        """Loads it, or makes a new one, which ``save`` then writes."""
        self._path = directory / IDENTITY_NAME
        self._disk = disk
        self._renewed = False
        found = load_side_file(self._path, _Identity)
        self._saved = found.id if found is not None else ""
        self.id = self._saved or secrets.token_hex(8)

    def renew(self) -> None:
        """The folder turned out to be a copy: make a new identity, once at most in a run, since a folder is copied between runs."""
        if not self._renewed:
            self._renewed = True
            self.id = secrets.token_hex(8)

    def save(self) -> None:
        """Writes a new identity. Raises OSError; the next call tries again."""
        if self.id != self._saved:
            identity = self.id
            save_side_file(self._disk, self._path, _Identity(identity))
            self._saved = identity
