"""Requests to one InfluxDB 2 server over a pool of connections that stay open."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

import msgspec
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ProtocolError

from stores.base import StoreUnavailable
from stores.influxdb.answers import (
    MSGPACK,
    ResultSeries,
    connection_cause,
    decode_results,
    split_lines,
    status_error,
)

# Seconds.
CONNECT_TIMEOUT, QUERY_TIMEOUT, WRITE_TIMEOUT, PING_TIMEOUT = 3.0, 30.0, 60.0, 3.0
STREAM_TIMEOUT = 60.0  # between two parts of an answer
_CONNECTIONS = 16
# Longer queries go into a request's body: proxies limit the length of a URL.
_LONGEST_QUERY_STRING = 4000
_READ_AT_ONCE = 1 << 16
_JSON = "application/json"

Params = Mapping[str, str | int | float]


@lru_cache(maxsize=1024)
def _quoted(statement: str) -> str:
    """A statement in a form. Statements repeat, since their values are in the parameters."""
    return quote_plus(statement)


class _PlainConnection(HTTPConnection):
    """Puts the body of a GET into its URL. The pool would check a long URL byte by byte, a tenth of a short query's time."""

    def request(self, method: str, url: str, body: Any = None, *args: Any, **options: Any) -> None:
        super().request(method, *_in_url(method, url, body), *args, **options)


class _SecureConnection(HTTPSConnection):
    """The same over TLS."""

    def request(self, method: str, url: str, body: Any = None, *args: Any, **options: Any) -> None:
        super().request(method, *_in_url(method, url, body), *args, **options)


def _in_url(method: str, url: str, body: bytes | None) -> tuple[str, bytes | None]:
    return (f"{url}?{body.decode()}", None) if method == "GET" and body else (url, body)


@dataclass(frozen=True, slots=True)
class InfluxConfig:
    """Where the readings go. ``retention`` (seconds, 0: for ever) applies to a bucket that the store makes, and to an
    existing one only when ``retention_is_given``."""

    url: str
    token: str
    org: str
    bucket: str
    retention: float = 0.0
    retention_is_given: bool = False


class InfluxConnection:
    """Speaks to one server with one token. Safe for threads, and in the child of a fork.

    Each call raises StoreUnavailable when the server is away, busy, too slow or rejects the token, and InfluxRefused
    when it rejects the request.
    """

    def __init__(self, config: InfluxConfig) -> None:
        self.config = config
        # With the id of the process that opened it.
        self._pool: tuple[int, urllib3.HTTPConnectionPool] | None = None
        self._path = urlsplit(config.url).path.rstrip("/")
        self._database = urlencode({"db": config.bucket, "org": config.org, "epoch": "ns"})
        self._headers = {"Authorization": f"Token {config.token}"}

    def write(self, lines: bytes) -> None:
        """Send gzipped lines. They are durable when this returns."""
        query = urlencode({"org": self.config.org, "bucket": self.config.bucket, "precision": "ns"})
        headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Encoding": "gzip"}
        self._send("POST", f"/api/v2/write?{query}", lines, headers, timeout=WRITE_TIMEOUT)

    def query(self, statement: str, params: Params) -> list[ResultSeries]:
        """Run an InfluxQL statement. Times are nanoseconds."""
        (series,) = self.query_each((statement,), params)
        return series

    def query_each(self, statements: Sequence[str], params: Params) -> list[list[ResultSeries]]:
        """Run several statements that share their parameters in one request. Returns one answer for each."""
        with self._query("; ".join(statements), params, MSGPACK) as response:
            answers = decode_results(self.name, response.data, response.headers.get("Content-Type", ""))
        if len(answers) != len(statements):
            raise StoreUnavailable(f"{self.name}: {len(answers)} answers to {len(statements)} questions")
        return answers

    def stream(self, statement: str, params: Params, points: int) -> Iterator[ResultSeries]:
        """Run a statement and yield its answer in parts of ``points`` points, as the server reads them."""
        with self._query(statement, params, _JSON, points) as response:
            for line in split_lines(response.stream(_READ_AT_ONCE)):
                for series in decode_results(self.name, line):
                    yield from series

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        timeout: float = QUERY_TIMEOUT,
    ) -> bytes:
        """Send any other request. Returns the body of the answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": _JSON, "Accept": _JSON}
        target = f"{path}?{urlencode(query)}" if query else path
        return self._send(method, target, data, headers, timeout=timeout).data

    @property
    def name(self) -> str:
        """The server's name in messages."""
        return f"InfluxDB at {self.config.url}"

    def close(self) -> None:
        """Close idle connections. A later call opens new ones."""
        opened, self._pool = self._pool, None
        if opened is not None and opened[0] == os.getpid():
            opened[1].close()

    @contextmanager
    def _query(
        self, statement: str, params: Params, accept: str, points: int | None = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """The response to an InfluxQL query; with ``points`` its body is read in parts."""
        bound = quote_plus(msgspec.json.encode(params))
        text = f"q={_quoted(statement)}&params={bound}&{self._database}"
        if points is not None:
            text += f"&chunked=true&chunk_size={points}"
        headers, is_stream = {"Accept": accept}, points is not None
        timeout = STREAM_TIMEOUT if is_stream else QUERY_TIMEOUT
        if len(text) <= _LONGEST_QUERY_STRING:  # one packet instead of two
            response = self._send("GET", "/query", text.encode(), headers, timeout=timeout, is_stream=is_stream)
        else:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            response = self._send("POST", "/query", text.encode(), headers, timeout=timeout, is_stream=is_stream)
        try:
            with self._unavailable():
                yield response
        finally:
            # A connection whose answer was not read to its end is closed, and the server stops working on it.
            response.close()

    def _send(
        self,
        method: str,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        timeout: float,
        is_stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        """The response, which has a status below 300."""
        limits = urllib3.Timeout(connect=CONNECT_TIMEOUT, read=timeout)
        with self._unavailable():
            for attempt in (1, 2):
                try:
                    response = self._connections().urlopen(
                        method,
                        self._path + target,
                        body,
                        {**self._headers, **headers},
                        retries=False,
                        redirect=False,
                        timeout=limits,
                        preload_content=not is_stream,
                    )
                    break
                except ProtocolError as error:
                    # The server may close an idle connection just as it is used again. Every request here is safe to repeat.
                    if attempt == 2 or not isinstance(
                        error.args[-1], (http.client.RemoteDisconnected, ConnectionError)
                    ):
                        raise
            if response.status >= 300:
                raise status_error(self.name, response.status, response.headers, response.data)
        return response

    @contextmanager
    def _unavailable(self) -> Iterator[None]:
        """Raises network errors inside the block as StoreUnavailable."""
        try:
            yield
        except (HTTPError, http.client.HTTPException, OSError) as error:
            raise StoreUnavailable(f"{self.name} does not answer: {connection_cause(error)}") from error

    def _connections(self) -> urllib3.HTTPConnectionPool:
        opened = self._pool
        # The child of a fork must not use its parent's connections.
        if opened is None or opened[0] != os.getpid():
            options = {"ssl_context": ssl.create_default_context()} if self.config.url.startswith("https:") else {}
            opened = (os.getpid(), urllib3.connection_from_url(self.config.url, maxsize=_CONNECTIONS, **options))
            opened[1].ConnectionCls = _SecureConnection if options else _PlainConnection
            self._pool = opened
        return opened[1]
