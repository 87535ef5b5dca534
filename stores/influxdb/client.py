"""Requests to one InfluxDB 2 server over the pool of connections that influxdb-client keeps open.

Lines go through the library's write service. InfluxQL, which it has no call for, goes straight to its pool.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote_plus, urlencode, urlsplit

import msgspec
import urllib3
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException
from influxdb_client.service.write_service import WriteService
from urllib3.exceptions import HTTPError, ProtocolError

from stores.base import StoreError, StoreUnavailable
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
_READ_AT_ONCE = 1 << 16
_JSON = "application/json"

T = TypeVar("T")
Params = Mapping[str, str | int | float]


@dataclass(frozen=True, slots=True)
class InfluxConfig:
    """Where the readings go. ``retention`` (seconds, 0: for ever) applies to a bucket that the store makes, and to an
    existing one only when ``retention_is_given``. ``retention_setting`` is its name in messages. ``tls_ca`` is a PEM file;
    empty for the system's certificates."""

    url: str
    token: str
    org: str
    bucket: str
    retention: float = 0.0
    retention_is_given: bool = False
    retention_setting: str = "RETENTION_PERIOD"
    tls_ca: str = ""

    @property
    def database(self) -> dict[str, str]:
        """InfluxQL's names of the bucket: bucket a/b is retention policy b of database a, as buckets of InfluxDB 1.x are named."""
        database, _, policy = self.bucket.partition("/")
        return {"db": database, "rp": policy} if policy else {"db": self.bucket}


class _Opened(NamedTuple):
    """A client and its pool of connections, with the id of the process that opened them."""

    pid: int
    client: InfluxDBClient
    pool: urllib3.HTTPConnectionPool


class InfluxConnection:
    """Speaks to one server with one token. Safe for threads, and in the child of a fork.

    Each call raises StoreUnavailable when the server is away, busy, too slow or rejects the token, and InfluxRefused
    when it rejects the request.
    """

    def __init__(self, config: InfluxConfig) -> None:
        self.config = config
        self._opened: _Opened | None = None
        self._path = urlsplit(config.url).path.rstrip("/")
        self._database = urlencode({**config.database, "org": config.org, "epoch": "ns"})
        self._headers = {"Authorization": f"Token {config.token}"}

    def write(self, lines: bytes) -> None:
        """Send gzipped lines. They are durable when this returns."""

        def post() -> None:
            WriteService(self._connections().client.api_client).post_write(
                self.config.org,
                self.config.bucket,
                lines,
                precision="ns",
                content_encoding="gzip",
                content_type="text/plain; charset=utf-8",
                _request_timeout=(CONNECT_TIMEOUT * 1000, WRITE_TIMEOUT * 1000),
            )

        try:
            self._attempt(post)
        except ApiException as error:
            body = error.body.encode() if isinstance(error.body, str) else error.body or b""
            raise status_error(self.name, error.status or 0, error.headers or {}, body) from error

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

    def stream(self, statement: str, params: Params, points: int) -> Generator[ResultSeries]:
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

    def request_json(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: object = None
    ) -> dict[str, Any]:
        """The same, decoded. Raises StoreError for an answer that is no JSON object: this is no InfluxDB 2."""
        data = self.request(method, path, query=query, body=body)
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise StoreError(f"INFLUXDB_URL (--influxdb-url): what answers at {self.config.url} is no InfluxDB 2")
        return answer

    @property
    def name(self) -> str:
        """The server's name in messages."""
        return f"InfluxDB at {self.config.url}"

    def close(self) -> None:
        """Close idle connections. A later call opens new ones."""
        opened, self._opened = self._opened, None
        if opened is not None and opened.pid == os.getpid():
            opened.pool.close()
            opened.client.close()

    @contextmanager
    def _query(
        self, statement: str, params: Params, accept: str, points: int | None = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """The response to an InfluxQL query; with ``points`` its body is read in parts."""
        bound = quote_plus(msgspec.json.encode(params))
        text = f"q={quote_plus(statement)}&params={bound}&{self._database}"
        if points is not None:
            text += f"&chunked=true&chunk_size={points}"
        is_stream = points is not None
        timeout = STREAM_TIMEOUT if is_stream else QUERY_TIMEOUT
        # In the body, not in the URL: proxies limit the length of a URL, and urllib3 checks it byte by byte.
        headers = {"Accept": accept, "Content-Type": "application/x-www-form-urlencoded"}
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

        def ask() -> urllib3.BaseHTTPResponse:
            return self._connections().pool.urlopen(
                method,
                self._path + target,
                body,
                {**self._headers, **headers},
                retries=False,
                redirect=False,
                timeout=limits,
                preload_content=not is_stream,
            )

        response = self._attempt(ask)
        if response.status >= 300:
            with self._unavailable():
                raise status_error(self.name, response.status, response.headers, response.data)
        return response

    def _attempt(self, call: Callable[[], T]) -> T:
        """What ``call`` returns. It is made again where the server closed an idle connection just as it was used."""
        with self._unavailable():
            try:
                return call()
            except ProtocolError as error:
                if not isinstance(error.args[-1], (http.client.RemoteDisconnected, ConnectionError)):
                    raise
            return call()  # every request here is safe to repeat

    @contextmanager
    def _unavailable(self) -> Iterator[None]:
        """Raises errors of the library and the network inside the block as StoreError or StoreUnavailable."""
        try:
            yield
        except ApiException as error:
            body = error.body.encode() if isinstance(error.body, str) else error.body or b""
            raise status_error(self.name, error.status or 0, error.headers or {}, body) from error
        except (HTTPError, http.client.HTTPException, OSError) as error:
            raise StoreUnavailable(f"{self.name} does not answer: {connection_cause(error)}") from error

    def _connections(self) -> _Opened:
        opened = self._opened
        # The child of a fork must not use its parent's connections.
        if opened is None or opened.pid != os.getpid():
            client = InfluxDBClient(
                self.config.url,
                token=self.config.token,
                org=self.config.org,
                retries=False,
                ssl_ca_cert=self.config.tls_ca or None,
                connection_pool_maxsize=_CONNECTIONS,
            )
            pool = client.api_client.rest_client.pool_manager.connection_from_url(self.config.url)
            opened = self._opened = _Opened(os.getpid(), client, pool)
        return opened
