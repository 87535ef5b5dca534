"""What InfluxDB's answers mean: results, a refusal for good, or a failure that may pass."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from stores.base import StoreError, StoreUnavailable

MSGPACK = "application/x-msgpack"  # costs the server a third less work than JSON
_LONGEST_RETRY_AFTER = 300.0
# Temporary: retrying the same request may succeed.
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_TEMPORARY_WORDS = ("timeout", "max-concurrent", "shutdown", "closed")


class InfluxRefused(StoreError):
    """The server rejected a request for good. ``reason`` is its own message on one line."""

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Redirected(StoreUnavailable):
    """The server is somewhere else than INFLUXDB_URL says."""


class NoSuchBucket(StoreUnavailable):
    """The bucket does not exist, or no longer."""


class ResultSeries(msgspec.Struct):
    """One series of an InfluxQL result."""

    columns: list[str]
    values: list[list[Any]]
    tags: dict[str, str] = {}


class _Result(msgspec.Struct):
    series: list[ResultSeries] = []
    error: str = ""


class _QueryAnswer(msgspec.Struct):
    results: list[_Result] = []
    error: str = ""


_decode_json = msgspec.json.Decoder(_QueryAnswer).decode
_decode_msgpack = msgspec.msgpack.Decoder(_QueryAnswer).decode


def decode_results(server: str, data: bytes, content_type: str = "") -> list[list[ResultSeries]]:
    """The series of each statement. Raises InfluxRefused or StoreUnavailable for an error inside the answer."""
    try:
        answer = _decode_msgpack(data) if content_type == MSGPACK else _decode_json(data)
    except msgspec.DecodeError as error:
        raise StoreUnavailable(f"{server}: an answer that cannot be read: {error}") from error
    for text in (answer.error, *(result.error for result in answer.results)):
        if text:
            raise _query_error(server, " ".join(text.split()))
    return [result.series for result in answer.results]


def status_error(server: str, status: int, headers: Mapping[str, str], body: bytes) -> StoreError:
    """The exception that an HTTP status of 300 or more stands for."""
    reason = _reason(body.decode("utf-8", "replace"))
    if status in {401, 403}:
        return StoreUnavailable(f"{server} does not take the token (INFLUXDB_TOKEN): {status} {reason}")
    if status < 400:
        where = " ".join(headers.get("Location", "elsewhere").split())[:500]
        return Redirected(f"{server} answers {status}: it is at {where}")
    if status in _TEMPORARY:
        return StoreUnavailable(
            f"{server} does not answer now: {status} {reason}".rstrip(),
            retry_after=_seconds(headers.get("Retry-After", "").strip()),
        )
    if status == 404 and "bucket" in reason:
        return NoSuchBucket(f"{server}: {reason}")
    return InfluxRefused(f"{server}: {status} {reason}", status, reason)


def split_lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines from parts that may end anywhere."""
    pending: list[bytes] = []
    for part in parts:
        *ended, rest = part.split(b"\n")
        for line in ended:
            yield b"".join([*pending, line])
            pending = []
        pending.append(rest)
    if last := b"".join(pending):
        yield last


def connection_cause(error: BaseException) -> str:
    """The network error underneath urllib3's wrapping, on one line."""
    while error.__cause__ is not None and not isinstance(error, OSError):
        error = error.__cause__
    for each in (error, *error.args):
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {each.verify_message} (INFLUXDB_TLS_CA names a CA of your own)"
        if isinstance(each, OSError) and each.strerror:
            return each.strerror.lower()
    text = " ".join(str(error).split())
    text = text.rsplit(">: ", 1)[-1].rsplit("object at 0x", 1)[-1]
    return text or type(error).__name__


def _query_error(server: str, reason: str) -> StoreError:
    if "database not found" in reason:
        return NoSuchBucket(f"{server}: {reason}")
    if any(word in reason for word in _TEMPORARY_WORDS):
        return StoreUnavailable(f"{server} does not answer now: {reason}")
    return InfluxRefused(f"{server}: {reason}", 400, reason)


def _reason(body: str) -> str:
    """The server's own message, on one line."""
    try:
        answer = json.loads(body)
        text = str(answer.get("message") or answer.get("error") or body)
    except (ValueError, AttributeError):
        text = body
    return " ".join(text.split())[:2000]


def _seconds(retry_after: str) -> float | None:
    """How long a Retry-After header (seconds or a date) asks to wait."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER) if seconds == seconds else None
