"""Questions over connections that stay open."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from stores.influxdb.http import Questions

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 4\r\n\r\nwell"
Serve = Callable[[socket.socket], None]


class Server:
    """Each connection is served by the next of the given functions."""

    def __init__(self, *serve: Serve, answers: Sequence[Sequence[bytes]] = ()) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self.seen: list[bytes] = []
        self._thread = threading.Thread(target=self._run, args=([*serve, *map(self._answering, answers)],))
        self._thread.start()

    def _run(self, serve: list[Serve]) -> None:
        for each in serve:
            connection, _ = self._listener.accept()
            self.connections += 1
            with connection:
                each(connection)

    def close(self) -> None:
        self._thread.join(10)
        self._listener.close()

    def _answering(self, answers: Sequence[bytes]) -> Serve:
        """Read a request, give an answer, and so on, then hang up."""

        def serve(connection: socket.socket) -> None:
            for answer in answers:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65536)
                head, _, rest = data.partition(b"\r\n\r\n")
                length = next(
                    (int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")), 0
                )
                while len(rest) < length:
                    rest += connection.recv(65536)
                self.seen.append(head + b"\r\n\r\n" + rest)
                connection.sendall(answer)

        return serve


@contextmanager
def asking(server: Server, path: str = "") -> Iterator[Questions]:
    questions = Questions(f"http://127.0.0.1:{server.port}{path}", {"Authorization": "Token t"}, connect_timeout=5)
    try:
        yield questions
    finally:
        questions.close()
        server.close()


def serve_all(*answers: tuple[bytes, ...]) -> Server:
    """A connection for each tuple, and on it these answers."""
    return Server(answers=answers)


def test_one_connection_serves_many_questions() -> None:
    server = serve_all((WHOLE, WHOLE))
    with asking(server, "/prefix/") as questions:
        for _ in range(2):
            reply = questions.ask("/query", {"q": "a b"}, "a/b", 5)
            assert (reply.status, reply.headers["content-type"], reply.body) == (200, "a/b", b"well")
    assert server.connections == 1
    assert server.seen[0].startswith(b"GET /prefix/query?q=a+b HTTP/1.1\r\n")
    assert b"Authorization: Token t\r\n" in server.seen[0]
    assert b"Accept: a/b\r\n" in server.seen[0]


def test_a_long_question_goes_into_the_body() -> None:
    server = serve_all((WHOLE,))
    with asking(server) as questions:
        assert questions.ask("/query", {"q": "x" * 5000}, "a/b", 5).body == b"well"
    assert server.seen[0].startswith(b"POST /query HTTP/1.1\r\n")
    assert server.seen[0].endswith(b"x" * 5000)


def test_a_connection_that_was_closed_while_idle_is_opened_again() -> None:
    server = serve_all((WHOLE,), (WHOLE,))
    with asking(server) as questions:
        assert questions.ask("/", {}, "*", 5).body == b"well"
        assert questions.ask("/", {}, "*", 5).body == b"well"
    assert server.connections == 2


def test_a_server_that_hangs_up_at_once_is_told() -> None:
    server = serve_all((b"",))
    with asking(server) as questions, pytest.raises(http.client.RemoteDisconnected):
        questions.ask("/", {}, "*", 5)


def test_a_server_that_says_nothing_is_given_up() -> None:
    done = threading.Event()

    def wait(connection: socket.socket) -> None:
        done.wait(10)

    server = Server(wait)
    with asking(server) as questions:
        with pytest.raises(TimeoutError):
            questions.ask("/", {}, "*", 0.05)
        done.set()


def test_an_answer_comes_in_parts_and_its_connection_is_used_again() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    server = serve_all((chunked, WHOLE))
    with asking(server) as questions:
        with questions.stream("/", {}, "*", 5) as (reply, parts):
            assert reply.status == 200
            assert b"".join(parts) == b"abcde"
        assert questions.ask("/", {}, "*", 5).body == b"well"
    assert server.connections == 1


def test_an_answer_that_is_left_closes_its_connection() -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 70_000
    server = serve_all((endless,), (WHOLE,))
    with asking(server) as questions:
        with questions.stream("/", {}, "*", 5) as (_, parts):
            assert next(parts)
        assert questions.ask("/", {}, "*", 5).body == b"well"
    assert server.connections == 2


def test_an_error_has_its_body() -> None:
    server = serve_all((b"HTTP/1.1 400 Bad\r\nContent-Length: 3\r\n\r\nwhy",))
    with asking(server) as questions, questions.stream("/", {}, "*", 5) as (reply, _):
        assert (reply.status, reply.body) == (400, b"why")


def test_an_answer_that_is_cut_off_is_told() -> None:
    server = serve_all((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",))
    with (
        asking(server) as questions,
        pytest.raises(http.client.IncompleteRead),
        questions.stream("/", {}, "*", 5) as (_, parts),
    ):
        list(parts)
