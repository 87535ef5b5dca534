"""What ends a streamer or a collector: each text is one line that names what is wrong and what to do."""

from __future__ import annotations


class IngestError(Exception):
    """The base of them all: the command prints the text and exits with status 1."""


class SourceError(IngestError):
    """The source cannot be read, or is not a capture."""


class StateError(IngestError):
    """The state folder cannot be written."""


class BrokerRefusal(IngestError):
    """The broker answers, but will not serve us however often we ask."""


class StoreRefusal(IngestError):
    """The store answers, but will not take what we write however often we ask."""
