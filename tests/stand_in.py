"""A door before the real InfluxDB that can be told what to answer: for what the server does not do on demand."""

from __future__ import annotations

import gzip
import http.client
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer instead of the server. Without a status the connection is dropped; ``delay`` in seconds comes first.

    ``forward``: let the server do it all the same, and then answer this.
    """

    status: int = 0
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    forward: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """A write that came: its lines."""

    at: float
    lines: list[str]


class StandIn:
    """Answers writes by its script, and hands everything else on to the server."""

    def __init__(self, target_port: int) -> None:
        self.script: deque[Answer] = deque()
        # Asked for each write that has no answer in the script.
        self.rule: Any = None
        self.away: Answer | None = None
        # Called around each write: when it has come, when the server has done it, and when that was told.
        self.hook: Callable[[Literal["asked", "done", "told"]], None] = lambda moment: None
        self.seen: list[Seen] = []
        self.asked = 0
        self._target = target_port
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                self._handle()

            do_POST = do_PATCH = do_DELETE = do_GET

            def _handle(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.asked += 1
                answer = outer.away
                is_write = self.path.startswith("/api/v2/write")
                if answer is None and is_write:
                    text = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                    lines = text.decode().split("\n")
                    outer.seen.append(Seen(time.monotonic(), lines))
                    answer = outer.script.popleft() if outer.script else outer.rule(lines) if outer.rule else None
                if answer is None:
                    if is_write:
                        outer.hook("asked")
                    told = outer.forward(self.command, self.path, body, dict(self.headers))
                    if is_write:
                        outer.hook("done")
                    self._send(*told)
                    if is_write:
                        outer.hook("told")
                    return
                time.sleep(answer.delay)
                if answer.forward:
                    outer.forward(self.command, self.path, body, dict(self.headers))
                if not answer.status:
                    self.close_connection = True
                    return
                self._send(answer.status, dict(answer.headers), answer.body.encode())

            def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        if name.lower() not in {"content-length", "transfer-encoding", "connection", "date"}:
                            self.send_header(name, value)
                    if status != 204:
                        self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    if status != 204:
                        self.wfile.write(body)
                except OSError:  # the client gave up
                    self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def forward(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        """Ask the real server."""
        connection = http.client.HTTPConnection("127.0.0.1", self._target, timeout=30)
        try:
            kept = {name: value for name, value in headers.items() if name.lower() not in {"host", "connection"}}
            connection.request(method, path, body, kept)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def standing_in(target_port: int) -> Iterator[StandIn]:
    """A stand-in for the server on that port."""
    door = StandIn(target_port)
    try:
        yield door
    finally:
        door.close()
