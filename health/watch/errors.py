"""Errors that end ``watch`` or send it back to waiting. Each text is one line."""

from __future__ import annotations


class WatchError(Exception):
    """It cannot go on. The command prints the text and exits with status 1."""


class LeaseLost(Exception):
    """Another ``watch`` has taken over: nothing may be written any more."""


class StartOver(Exception):
    """The database went away in the middle of a commit: judge again from what it has."""
