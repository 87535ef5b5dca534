"""Every error of the broker and its client, and which of them are worth a retry.

The errors up to NotSubscribed are answered over the wire, by their ``code``. The client raises BrokerUnavailable and
ConnectionLost; the process that holds the log or its files raises the rest. Callers branch on ``retriable``, never on the text.
"""

from __future__ import annotations

from typing import ClassVar


class BrokerError(Exception):
    """Base class. ``code`` is the error's name on the wire; ``retriable``: trying again can help."""

    code: ClassVar[str] = "error"
    retriable: ClassVar[bool] = False


class BadFrame(BrokerError):
    """The frame is not a JSON object that the broker knows."""

    code = "bad_frame"


class TooLarge(BrokerError):
    """A frame over the largest size the broker takes."""

    code = "too_large"


class Unauthorized(BrokerError):
    """No token, or the wrong one."""

    code = "unauthorized"


class SubscriberInUse(BrokerError):
    """A live subscriber has this id."""

    code = "subscriber_in_use"
    retriable = True


class OffsetOutOfRange(BrokerError):
    """An offset past the end of the log."""

    code = "offset_out_of_range"


class DiskFull(BrokerError):
    """The disk is full: nothing of the request was kept."""

    code = "disk_full"
    retriable = True


class ReadOnly(BrokerError):
    """The log's disk takes no writes: nothing of the request was kept."""

    code = "read_only"
    retriable = True


class Overloaded(BrokerError):
    """Too many clients, too much in flight, or too many open files."""

    code = "overloaded"
    retriable = True


class ShuttingDown(BrokerError):
    """The broker is stopping."""

    code = "shutting_down"
    retriable = True


class UnknownType(BrokerError):
    """A request type that the broker does not know."""

    code = "unknown_type"


class InvalidRequest(BrokerError):
    """A known request with a field that is missing or wrong."""

    code = "bad_request"


class NotSubscribed(BrokerError):
    """An ack or nack on a connection that has no subscription."""

    code = "not_subscribed"


class BrokerUnavailable(BrokerError):
    """No broker answers at the address."""

    code = "unavailable"
    retriable = True


class ConnectionLost(BrokerError):
    """The connection ended; unanswered publishes may or may not be in the log."""

    code = "connection_lost"
    retriable = True


class CorruptRecord(BrokerError):
    """A record's bytes are not what was written."""

    code = "corrupt_record"


class LogLocked(BrokerError):
    """Another broker has the directory."""

    code = "log_locked"


class LogUnusable(BrokerError):
    """The directory cannot hold a log: no access, no folder, or written by another version."""

    code = "log_unusable"


class TlsUnusable(BrokerError):
    """A certificate, key or CA file that does not work."""

    code = "tls_unusable"


class LogFailed(BrokerError):
    """A write's outcome is unknown (a failed fsync). The log takes nothing more until a restart recovers it."""

    code = "log_failed"


# What a log answers when it cannot write now: nothing of the request was kept.
WRITE_REFUSED = (DiskFull, ReadOnly, Overloaded)

BY_CODE: dict[str, type[BrokerError]] = {error.code: error for error in BrokerError.__subclasses__()}


def for_code(code: str, message: str) -> BrokerError:
    """Returns the error with that ``code``, or a plain BrokerError for a code of a newer broker."""
    return BY_CODE.get(code, BrokerError)(message)


class ListenError(Exception):
    """The broker cannot listen on its address. The text is one line."""
