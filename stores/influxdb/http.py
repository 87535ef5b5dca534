"""Questions to InfluxDB over connections that stay open: the client library takes three times as long for a short one."""

from __future__ import annotations

import http.client
import os
import ssl
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

_IDLE_KEPT = 16
# Longer ones go into a body: proxies limit what a request's first line may be.
_LONGEST_LINE = 4000
_READ_AT_ONCE = 1 << 16


class Reply(NamedTuple):
    """What the server said, whatever its status."""

    status: int
    headers: Message
    body: bytes


class Questions:
    """Asks one server. Safe for threads, and in the child of a fork.

    Raises OSError, also for time-outs, and http.client.HTTPException. ``headers`` go with each request; times in seconds.
    """

    def __init__(self, url: str, headers: Mapping[str, str], *, connect_timeout: float) -> None:
        found = urlsplit(url)
        self._host = found.hostname or ""
        self._is_secure = found.scheme == "https"
        self._port = found.port
        self._path = found.path.rstrip("/")
        self._headers = dict(headers)
        self._connect_timeout = connect_timeout
        self._idle: deque[http.client.HTTPConnection] = deque()
        self._pid = os.getpid()
        self._context = ssl.create_default_context() if self._is_secure else None
        weakref.finalize(self, _close_all, self._idle)

    def ask(self, path: str, form: Mapping[str, str], accept: str, timeout: float) -> Reply:
        """The whole answer to a form."""
        with self._connection(timeout) as connection:
            response = self._send(connection, path, form, accept, timeout)
            return Reply(response.status, response.headers, response.read())

    @contextmanager
    def stream(
        self, path: str, form: Mapping[str, str], accept: str, timeout: float
    ) -> Iterator[tuple[Reply, Iterator[bytes]]]:
        """The answer's status and headers (with its body where it is an error), and the parts of its body as they come.

        ``timeout`` is for each part. Left before the end, the connection is closed, and the server stops its work.
        """
        with self._connection(timeout) as connection:
            response = self._send(connection, path, form, accept, timeout)
            failed = response.status >= 400
            yield Reply(response.status, response.headers, response.read() if failed else b""), _parts(response)
            if not response.isclosed():
                connection.close()

    def close(self) -> None:
        """Close what is idle; a later question opens new connections."""
        _close_all(self._idle)

    @contextmanager
    def _connection(self, timeout: float) -> Iterator[http.client.HTTPConnection]:
        """A connection for this thread alone. After an error it is not used again."""
        if self._pid != os.getpid():  # those are the parent's, which goes on using its own copies
            self._pid = os.getpid()
            self.close()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._new()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        if len(self._idle) < _IDLE_KEPT:
            self._idle.append(connection)
        else:
            connection.close()

    def _new(self) -> http.client.HTTPConnection:
        if self._context is not None:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=self._connect_timeout, context=self._context
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=self._connect_timeout)

    def _send(
        self, connection: http.client.HTTPConnection, path: str, form: Mapping[str, str], accept: str, timeout: float
    ) -> http.client.HTTPResponse:
        text = urlencode(form)
        headers = {**self._headers, "Accept": accept}
        for fresh in (connection.sock is None, True):
            try:
                if connection.sock is None:
                    connection.connect()
                connection.sock.settimeout(timeout)
                if len(text) <= _LONGEST_LINE:
                    connection.request("GET", f"{self._path}{path}?{text}", headers=headers)
                else:
                    headers["Content-Type"] = "application/x-www-form-urlencoded"
                    connection.request("POST", self._path + path, text, headers)
                return connection.getresponse()
            except (http.client.RemoteDisconnected, ConnectionError):
                # The server may close a connection that was idle just as it is used: that says nothing of the server.
                connection.close()
                connection.timeout = self._connect_timeout
                if fresh:
                    raise
        raise AssertionError("the second attempt returns or raises")


def _close_all(connections: deque[http.client.HTTPConnection]) -> None:
    while connections:
        connections.pop().close()


def _parts(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while part := response.read(_READ_AT_ONCE):
        yield part
