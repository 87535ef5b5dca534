"""Threads that have Django answer whole requests. Health checks have threads of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from queue import SimpleQueue
from typing import Any

from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.http.message import Request
from gunicorn.workers.base import Worker

from api.server import RECEIVED_AT, limits
from api.server.connection import ClientConnection
from api.server.outgoing import ClientGone, Outgoing, Stop

# Each has a thread, so that it neither waits for other requests nor for the other.
PROBES = ("/health", "/ready")
_OVERLOADED = "the service is busy: the request waited {:g} s for its turn: try again later"

_Lane = SimpleQueue[tuple[ClientConnection, Request, float]]


class Answers:
    """Takes requests in turn. ``hand_back`` gets each connection when its answer is written."""

    def __init__(self, worker: Worker, hand_back: Callable[[ClientConnection], None]) -> None:
        self._worker = worker
        self._hand_back = hand_back
        self.stop: Stop | None = None
        self._lane: _Lane = SimpleQueue()
        self._probe_lanes: dict[str | None, _Lane] = {path: SimpleQueue() for path in PROBES}

    def start(self) -> None:
        """Start the threads. They end with the process."""
        for lane in [*[self._lane] * self._worker.cfg.threads, *self._probe_lanes.values()]:
            threading.Thread(target=self._work, args=(lane,), daemon=True).start()

    def put(self, connection: ClientConnection, request: Request) -> None:
        """Have a request answered."""
        self._probe_lanes.get(request.path, self._lane).put((connection, request, time.monotonic()))

    def _work(self, lane: _Lane) -> None:
        while True:
            connection, request, queued_at = lane.get()
            try:
                connection.ends = not self._answer(connection, request, queued_at)
            except ClientGone:
                connection.is_broken = True
            except BaseException:
                self._worker.log.exception("error handling request %s", request.path)
                connection.is_broken = True
            self._hand_back(connection)

    def _answer(self, connection: ClientConnection, request: Request, queued_at: float) -> bool:
        """Write the answer. Returns whether the connection can be used again. Raises ClientGone."""
        out = connection.out
        if time.monotonic() > queued_at + limits.QUEUE_SECONDS:
            write_error(out, 503, "Service Unavailable", _OVERLOADED.format(limits.QUEUE_SECONDS))
            return False
        worker = self._worker
        began = datetime.now()  # noqa: DTZ005  (gunicorn's access log takes the difference)
        sock: Any = out
        response: Any
        response, environ = wsgi.create(request, sock, connection.client, connection.server, worker.cfg)
        environ["wsgi.multithread"] = True
        environ[RECEIVED_AT] = queued_at
        try:
            body = worker.wsgi(environ, response.start_response)
            self._count(response)
            try:
                self._write(response, body, out)
            finally:
                worker.log.access(response, request, environ, datetime.now() - began)  # noqa: DTZ005
                if hasattr(body, "close"):
                    body.close()
        except ClientGone:
            raise
        except Exception as error:
            if not getattr(error, "is_logged", False):
                worker.log.exception("error handling request %s", request.path)
            if response.headers_sent:
                return False
            out.drop()
            write_error(out, 500, "Internal Server Error", "")
            return False
        out.flush()
        return not response.should_close()

    def _count(self, response: Any) -> None:
        worker = self._worker
        worker.nr += 1
        if worker.nr >= worker.max_requests and worker.alive:
            worker.log.info("Autorestarting worker after current request.")
            worker.alive = False
        if not worker.alive or not worker.cfg.keepalive:
            response.force_close()

    def _write(self, response: Any, body: Iterable[bytes], out: Outgoing) -> None:
        """An answer of known length goes to the loop whole. One of unknown length, an export, waits for its client."""
        if response.req.method == "HEAD":
            response.write(b"")
            return
        is_stream = False
        for piece in body:
            response.write(piece)
            if response.response_length is None:
                if not is_stream:
                    is_stream = True
                    if not response.chunked:
                        out.use_small_buffer()
                out.flush()
                if out.unsent > limits.STREAM_WAITING_BYTES:
                    out.deliver(lambda: self.stop)
        response.close()


def write_error(out: Outgoing, status: int, reason: str, message: str) -> None:
    """An answer without Django, in the shape that the worker's configuration gave gunicorn."""
    sock: Any = out
    util.write_error(sock, status, reason, message)
