"""gunicorn's worker for this service. Its loop reads requests and sends answers; threads only work on whole requests.

So a client holds no thread by being slow, and every wait for a client has a deadline (limits.py).
"""

from __future__ import annotations

import errno
import os
import resource
import selectors
import socket
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

from gunicorn.workers.base import Worker

from api.server import limits
from api.server.answers import Answers, write_error
from api.server.connection import ClientConnection, State
from api.server.outgoing import ClientGone, Stop
from api.server.requests import RequestRefused
from api.server.tally import Tally

_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_TOO_SLOW = "the request was not complete in {:g} s"

_STOP_TURN_SECONDS = 0.1


class TelemetryWorker(Worker):
    """Accepts, reads, sends and keeps time in one loop; answers in ``cfg.threads`` threads and one for each probe."""

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """gunicorn calls this before it forks. Ends the start where it would not do what was asked."""
        if cfg.is_ssl or cfg.proxy_protocol != "off" or "h2" in cfg.http_protocols:
            sys.exit(
                "error: this service speaks plain HTTP/1.1: TLS, HTTP/2 and PROXY lines belong to a proxy before it"
            )

    def init_process(self) -> None:
        """Prepare what belongs to this process, then run."""
        self._connections: set[ClientConnection] = set()
        self._finished: deque[ClientConnection] = deque()
        self._poller = selectors.DefaultSelector()
        self._tally = Tally(self.log.error_log)
        self._accepts = False
        self._sweep_at = 0.0
        self._stopped_at: float | None = None
        self._handover = threading.Lock()
        self._most = _connections_allowed(self.cfg.worker_connections)
        self._answers = Answers(self, self._hand_back)
        super().init_process()

    # --- the loop ---------------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Serve until told to stop, then finish what was begun."""
        self._answers.start()
        self._poller.register(self.PIPE[0], selectors.EVENT_READ)
        self._listen(True)
        while self.alive:
            self.notify()
            self._turn()
            if self.ppid != os.getppid():
                self.log.info("Parent changed, shutting down: %s", self)
                break
        self.alive = False
        self._stop()

    def _turn(self) -> None:
        """Wait for something to do, and do it."""
        patience = limits.SWEEP_SECONDS if self.alive else _STOP_TURN_SECONDS
        for key, events in self._poller.select(patience):
            connection = key.data
            if isinstance(connection, ClientConnection):
                if connection not in self._connections:  # closed in this turn
                    continue
                if events & selectors.EVENT_WRITE:
                    self._send(connection)
                else:
                    self._read(connection)
            elif connection is None:
                self._drain_pipe()
            else:
                self._accept(key.fileobj, connection)
        while self._finished:
            connection = self._finished.popleft()
            if connection in self._connections:
                self._after_answer(connection)
        now = time.monotonic()
        if now >= self._sweep_at:
            self._sweep_at = now + limits.SWEEP_SECONDS
            self._sweep(now)

    def _stop(self) -> None:
        """Take no more connections, and answer the requests that are here."""
        self._stopped_at = now = time.monotonic()
        self._listen(False)
        for listener in self.sockets:
            listener.close()
        ends = now + limits.STOP_SECONDS
        self._answers.stop = Stop(now + limits.STOP_EXPORT_SECONDS, ends)
        while self._connections and (now := time.monotonic()) < ends:
            for connection in list(self._connections):
                if connection.state is State.SENDING:
                    connection.out.make_room()
                    self._send(connection)  # the poller tells of room late
                elif connection.state in (State.READING, State.IDLE):
                    connection.deadline = min(connection.deadline, self._stopped_at + limits.STOP_IDLE_SECONDS)
            self._sweep_at = 0.0
            self.notify()
            self._turn()
        cut = [each for each in self._connections if each.state in (State.WORKING, State.SENDING)]
        for connection in cut:
            # The end of the connection alone would let an answer without a length look whole.
            connection.close(abort=True)
        if cut:
            self.log.warning("stopped before %d answers were complete", len(cut))
        self._tally.tell(float("inf"))

    def _drain_pipe(self) -> None:
        with suppress(OSError):
            os.read(self.PIPE[0], 4096)

    def _wake(self) -> None:
        with suppress(OSError):  # a full pipe wakes the loop, too
            os.write(self.PIPE[1], b".")

    def _listen(self, wanted: bool) -> None:
        if wanted == self._accepts:
            return
        self._accepts = wanted
        for listener in self.sockets:
            if wanted:
                listener.setblocking(False)
                self._poller.register(listener, selectors.EVENT_READ, listener.getsockname() or "unix")
            else:
                self._poller.unregister(listener)

    def exports_end_at(self) -> float | None:
        """Until when exports may go on, by the monotonic clock; None while the worker serves."""
        return None if self._answers.stop is None else self._answers.stop.exports_at

    # --- connections ------------------------------------------------------------------------------------------------
    def _accept(self, listener: Any, server: Any) -> None:
        try:
            sock, client = listener.accept()
        except OSError as error:
            if error.errno in _FULL:
                self._tally.add(f"a connection could not be accepted: {error.strerror}", "anyone")
                if not self._make_place():
                    self._listen(False)  # until the next sweep
            return
        if len(self._connections) >= self._most and not self._make_place():
            sock.close()
            return
        connection = ClientConnection(sock, client, server, self.cfg, time.monotonic())
        self._connections.add(connection)
        self._watch(connection)

    def _make_place(self) -> bool:
        """Close the connection that matters least. Returns False if each is being worked for."""
        victim = min(
            (connection for connection in self._connections if connection.state is not State.WORKING),
            key=lambda connection: (
                connection.state is State.SENDING,
                connection.state is State.IDLE,
                connection.since,
            ),
            default=None,
        )
        if victim is None:
            return False
        self._tally.add(
            f"more than {self._most} connections, so the oldest that waits for its client is closed", victim.name()
        )
        self._close(victim, abort=True)
        return True

    def _watch(self, connection: ClientConnection) -> None:
        if not connection.is_watched:
            connection.is_watched = True
            self._poller.register(connection.sock, selectors.EVENT_READ, connection)

    def _unwatch(self, connection: ClientConnection) -> None:
        if connection.is_watched:
            connection.is_watched = False
            self._poller.unregister(connection.sock)

    def _close(self, connection: ClientConnection, *, abort: bool = False) -> None:
        self._unwatch(connection)
        self._connections.discard(connection)
        connection.close(abort=abort)

    def _read(self, connection: ClientConnection) -> None:
        with self._handover:
            if is_busy := connection.state is State.WORKING:
                connection.is_watched = False
        if is_busy:  # the client sends more before it has its answer
            self._poller.unregister(connection.sock)
            return
        if connection.state is State.LINGERING:
            if not connection.discard():
                self._close(connection)
            return
        if not connection.receive():
            self._close(connection)
        else:
            self._next_request(connection)

    def _next_request(self, connection: ClientConnection) -> None:
        """Have the next request answered, if it is whole."""
        try:
            request = connection.requests.take()
        except RequestRefused as refused:
            self._refuse(connection, refused)
            return
        if request is not None:
            connection.wait(State.WORKING, time.monotonic(), 0.0)
            self._answers.put(connection, request)
            return
        self._watch(connection)
        if connection.requests.owes_continue:
            connection.requests.owes_continue = False
            connection.out.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            try:
                connection.out.flush()
            except ClientGone:
                self._close(connection)
                return
        if connection.state is State.IDLE and connection.requests.begun:
            connection.wait(State.READING, time.monotonic(), limits.REQUEST_SECONDS)
        if connection.requests.waiting > limits.MAX_HEAD_BYTES:
            self._bound(State.READING)

    def _refuse(self, connection: ClientConnection, refused: RequestRefused) -> None:
        write_error(connection.out, refused.status, refused.reason, str(refused))
        connection.ends = True
        self._after_answer(connection)

    def _after_answer(self, connection: ClientConnection) -> None:
        """An answer is written, though perhaps not sent."""
        if connection.is_broken:
            self._close(connection, abort=True)
            return
        try:
            sent = connection.out.flush()
        except ClientGone:
            self._close(connection, abort=True)
            return
        now = time.monotonic()
        if not sent:
            self._unwatch(connection)
            unsent = connection.out.unsent
            connection.unsent, connection.progressed = unsent, now
            connection.wait(State.SENDING, now, limits.SEND_SECONDS + unsent / limits.MIN_BYTES_PER_SECOND)
            connection.is_watched = True
            self._poller.register(connection.sock, selectors.EVENT_WRITE, connection)
            self._bound(State.SENDING)
        elif connection.ends:
            self._linger(connection, now)
        else:
            connection.wait(State.IDLE, now, self.cfg.keepalive)
            self._watch(connection)
            if connection.requests.begun:  # the client did not wait for the answer
                connection.wait(State.READING, now, limits.REQUEST_SECONDS)
                self._next_request(connection)

    def _send(self, connection: ClientConnection) -> None:
        before = connection.out.unsent
        try:
            sent = connection.out.flush()
        except ClientGone:
            self._close(connection, abort=True)
            return
        if connection.out.unsent < before:
            connection.unsent, connection.progressed = connection.out.unsent, time.monotonic()
        if sent:
            self._unwatch(connection)
            connection.unsent = 0
            self._after_answer(connection)

    def _linger(self, connection: ClientConnection, now: float) -> None:
        """End the connection so that the client gets all of its answer."""
        connection.wait(State.LINGERING, now, limits.LINGER_SECONDS)
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
            return
        if connection.discard():
            self._watch(connection)
        else:
            self._close(connection)

    def _hand_back(self, connection: ClientConnection) -> None:
        """From a thread: the connection is the loop's again. The loop need not wake up where there is nothing to do."""
        if self.alive and not (
            connection.ends or connection.is_broken or connection.out.unsent or connection.requests.begun
        ):
            with self._handover:
                if connection.is_watched:
                    connection.wait(State.IDLE, time.monotonic(), self.cfg.keepalive)
                    return
        self._finished.append(connection)
        self._wake()

    # --- deadlines --------------------------------------------------------------------------------------------------
    def _sweep(self, now: float) -> None:
        for connection in list(self._connections):
            state = connection.state
            stalls = state is State.SENDING and now > connection.progressed + limits.STALL_SECONDS
            if state is not State.WORKING and (stalls or now > connection.deadline):
                self._expire(connection)
        self._tally.tell(now)
        self._listen(self._stopped_at is None)

    def _expire(self, connection: ClientConnection) -> None:
        if connection.state is State.READING:
            if connection.requests.begun and self._stopped_at is not None:
                self._refuse(connection, RequestRefused(503, "Service Unavailable", "the service is stopping"))
                return
            if connection.requests.begun:
                text = _TOO_SLOW.format(limits.REQUEST_SECONDS)
                self._tally.add(text, connection.name())
                self._refuse(connection, RequestRefused(408, "Request Timeout", text))
                return
        elif connection.state is State.SENDING:
            self._tally.add("an answer was not taken in time", connection.name())
        self._close(connection, abort=connection.state is State.SENDING)

    def _bound(self, state: State) -> None:
        """Keep what waits in memory under its limit: the client that has been the slowest goes."""
        if state is State.SENDING:
            waiting = [(each.unsent, each) for each in self._connections if each.state is state]
        else:
            waiting = [(each.requests.waiting, each) for each in self._connections if each.state is state]
        if len(waiting) > 1 and sum(size for size, _ in waiting) > limits.MAX_WAITING_BYTES:
            _, victim = min(waiting, key=lambda each: (each[0] == 0, each[1].progressed))
            self._tally.add("clients are slow and memory is short, so the slowest is cut off", victim.name())
            self._close(victim, abort=True)


def _connections_allowed(wanted: int) -> int:
    """As many as the system gives descriptors for; asks it for all it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted + limits.RESERVED_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < most:
        raised = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        return max(raised - limits.RESERVED_DESCRIPTORS, raised // 2)
    return wanted
