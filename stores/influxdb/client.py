"""Requests to InfluxDB 2, and what its answers mean for a caller: done, refused for good, or ask again later."""

from __future__ import annotations

import http.client
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException
from influxdb_client.service.write_service import WriteService
from urllib3 import HTTPHeaderDict
from urllib3.exceptions import HTTPError

from stores.base import StoreError, StoreUnavailable
from stores.influxdb.http import Questions, Reply

_CONNECT_MS = 3_000
QUERY_MS, WRITE_MS, PING_MS = 30_000, 60_000, 3_000
STREAM_MS = 60_000  # between two parts of an answer
# The server is there, and the same request may succeed later without anybody changing it.
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONNECTIONS = 16
_LONGEST_RETRY_AFTER = 300.0


class InfluxRefused(StoreError):
    """The server answered that it does not do this: ``status`` and ``reason``, its own words on one line."""

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class NoSuchBucket(StoreUnavailable):
    """The bucket is not there (any more)."""


class Series(msgspec.Struct):
    """One part of an InfluxQL answer."""

    columns: list[str]
    values: list[list[Any]]
    tags: dict[str, str] = {}


class _Result(msgspec.Struct):
    series: list[Series] = []
    error: str = ""


class _Answer(msgspec.Struct):
    results: list[_Result] = []
    error: str = ""


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_packed = msgspec.msgpack.Decoder(_Answer).decode
_MSGPACK = "application/x-msgpack"  # a third less work for the server than JSON


@dataclass(frozen=True, slots=True)
class InfluxConfig:
    """Where the readings go. ``retention`` in seconds (0: for ever) is for a bucket that is made, and for one that is
    there only when ``retention_is_given``."""

    url: str
    token: str
    org: str
    bucket: str
    retention: float = 0.0
    retention_is_given: bool = False


class InfluxConnection:
    """Speaks to one server with one token. Safe for threads, and in the child of a fork.

    Each call raises StoreUnavailable when the server is away, busy or too slow or does not take the token, and
    InfluxRefused when it says no.
    """

    def __init__(self, config: InfluxConfig) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._client: InfluxDBClient | None = None
        self._pid = 0
        self._questions = Questions(
            config.url, {"Authorization": f"Token {config.token}"}, connect_timeout=_CONNECT_MS / 1000
        )

    def write(self, body: bytes, *, compressed: bool = True) -> None:
        """Send lines; they are durable when this returns."""
        self._guarded(
            lambda client: WriteService(client.api_client).post_write(
                self.config.org,
                self.config.bucket,
                body,
                precision="ns",
                content_encoding="gzip" if compressed else "identity",
                content_type="text/plain; charset=utf-8",
                _request_timeout=(_CONNECT_MS, WRITE_MS),
            )
        )

    def query(self, statement: str, params: Mapping[str, str | int | float]) -> list[Series]:
        """Ask in InfluxQL; times are nanoseconds."""
        (series,) = self.query_each((statement,), params)
        return series

    def query_each(self, statements: Sequence[str], params: Mapping[str, str | int | float]) -> list[list[Series]]:
        """Ask several statements in one request, which share their params; an answer for each."""
        form = self._question("; ".join(statements), params)
        with self._meant():
            reply = self._questions.ask("/query", form, _MSGPACK, QUERY_MS / 1000)
        self._check(reply)
        answers = self._answers(reply.body, reply.headers.get("Content-Type", ""))
        if len(answers) != len(statements):
            raise StoreUnavailable(f"{self.name}: {len(answers)} answers to {len(statements)} questions")
        return answers

    def stream(self, statement: str, params: Mapping[str, str | int | float], points: int) -> Iterator[Series]:
        """Ask in InfluxQL and take the answer in parts of so many points, as the server reads them."""
        form = self._question(statement, params) | {"chunked": "true", "chunk_size": str(points)}
        with (
            self._meant(),
            self._questions.stream("/query", form, "application/json", STREAM_MS / 1000) as (reply, parts),
        ):
            self._check(reply)
            for line in _lines(parts):
                for series in self._answers(line):
                    yield from series

    def _question(self, statement: str, params: Mapping[str, str | int | float]) -> dict[str, str]:
        return {
            "q": statement,
            "params": json.dumps(params),
            "db": self.config.bucket,
            "org": self.config.org,
            "epoch": "ns",
        }

    def _answers(self, data: bytes, kind: str = "") -> list[list[Series]]:
        try:
            answer = _decode_packed(data) if kind == _MSGPACK else _decode_answer(data)
        except msgspec.DecodeError as error:
            raise StoreUnavailable(f"{self.name}: an answer that cannot be read: {error}") from error
        for text in (answer.error, *(result.error for result in answer.results)):
            self._check_query(text)
        return [result.series for result in answer.results]

    @contextmanager
    def _meant(self) -> Iterator[None]:
        try:
            yield
        except (http.client.HTTPException, OSError) as error:
            raise StoreUnavailable(f"{self.name} does not answer: {_cause(error)}") from error

    def _check(self, reply: Reply) -> None:
        if reply.status >= 300:
            error = ApiException(status=reply.status, reason="")
            error.body, error.headers = reply.body, HTTPHeaderDict(reply.headers.items())
            raise self._meaning(error)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: object = None,
        timeout_ms: int = QUERY_MS,
    ) -> bytes:
        """Any other request: its answer's body."""

        def ask(client: InfluxDBClient) -> bytes:
            response = client.api_client.call_api(
                path,
                method,
                query_params=list(query),
                header_params={"Content-Type": "application/json", "Accept": "application/json"},
                body=body,
                _return_http_data_only=True,
                _preload_content=False,
                _request_timeout=(_CONNECT_MS, timeout_ms),
            )
            data: bytes = response.data
            return data

        data: bytes = self._guarded(ask)
        return data

    @property
    def name(self) -> str:
        """How messages call the server."""
        return f"InfluxDB at {self.config.url}"

    def close(self) -> None:
        """Let go of the connections; a later call opens new ones."""
        self._questions.close()
        with self._lock:
            client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            client.close()

    def _guarded(self, call: Any) -> Any:
        # A connection that was idle may have been closed by the server just as it is used: that says nothing of the
        # server, and every request here can be sent twice.
        for attempt in (1, 2):
            try:
                return call(self._connected())
            except ApiException as error:
                raise self._meaning(error) from error
            except (HTTPError, http.client.HTTPException, OSError) as error:
                if attempt == 1 and "RemoteDisconnected" in repr(error):
                    continue
                raise StoreUnavailable(f"{self.name} does not answer: {_cause(error)}") from error
        raise AssertionError("the second attempt returns or raises")

    def _connected(self) -> InfluxDBClient:
        with self._lock:
            # The child of a fork must not use its parent's connections: it gets its own.
            if self._client is None or self._pid != os.getpid():
                self._pid = os.getpid()
                self._client = InfluxDBClient(
                    self.config.url,
                    token=self.config.token,
                    org=self.config.org,
                    timeout=QUERY_MS,
                    retries=False,
                    connection_pool_maxsize=_CONNECTIONS,
                )
            return self._client

    def _meaning(self, error: ApiException) -> StoreError:
        status = error.status or 0
        reason = _reason(error)
        if status in {401, 403}:
            return StoreUnavailable(f"{self.name} does not take the token (INFLUXDB_TOKEN): {status} {reason}")
        if status in _LATER or status < 400:
            return StoreUnavailable(
                f"{self.name} does not answer now: {status} {reason}".rstrip(), retry_after=_retry_after(error)
            )
        if status == 404 and "bucket" in reason:
            return NoSuchBucket(f"{self.name}: {reason}")
        return InfluxRefused(f"{self.name}: {status} {reason}", status, reason)

    def _check_query(self, error: str) -> None:
        if not error:
            return
        reason = " ".join(error.split())
        if "database not found" in reason:
            raise NoSuchBucket(f"{self.name}: {reason}")
        if "timeout" in reason or "max-concurrent" in reason or "shutdown" in reason or "closed" in reason:
            raise StoreUnavailable(f"{self.name} does not answer now: {reason}")
        raise InfluxRefused(f"{self.name}: {reason}", 400, reason)


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines, out of parts that end anywhere."""
    held: list[bytes] = []
    for part in parts:
        *ended, rest = part.split(b"\n")
        for line in ended:
            yield b"".join([*held, line])
            held = []
        held.append(rest)
    if last := b"".join(held):
        yield last


def _reason(error: ApiException) -> str:
    """The server's own words, on one line."""
    body = error.body.decode("utf-8", "replace") if isinstance(error.body, bytes) else error.body or ""
    try:
        found = json.loads(body)
        text = str(found.get("message") or found.get("error") or body)
    except (ValueError, AttributeError):
        text = body or error.reason or ""
    return " ".join(text.split())[:2000]


def _retry_after(error: ApiException) -> float | None:
    """Seconds to wait, as the server asks for."""
    said = str(error.headers.get("Retry-After", "") if error.headers else "").strip()
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER) if seconds == seconds else None


def _cause(error: BaseException) -> str:
    """What is wrong with the connection, without urllib3's wrapping."""
    while error.__cause__ is not None and not isinstance(error, OSError):
        error = error.__cause__
    for each in (error, *error.args):
        if isinstance(each, OSError) and each.strerror:
            return each.strerror.lower()
    text = " ".join(str(error).split())
    text = text.rsplit(">: ", 1)[-1].rsplit("object at 0x", 1)[-1]
    return text or type(error).__name__
