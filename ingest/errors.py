"""Errors that end a streamer or a collector. Each text is one line that names the problem and the remedy."""

from __future__ import annotations


class IngestError(Exception):
    """Base class. The command prints the text and exits with status 1."""


class SourceError(IngestError):
    """The source cannot be read or is not a capture."""


class StateError(IngestError):
    """The state folder cannot be written."""


class BrokerRefusal(IngestError):
    """The broker refuses us for good: retrying does not help."""


class StoreRefusal(IngestError):
    """The store refuses our readings for good: retrying does not help."""
