from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from stores.base import StoreError, StoreUnavailable
from stores.influxdb import InfluxStore, client
from stores.influxdb.answers import InfluxRefused, NoSuchBucket, ResultSeries
from stores.influxdb.client import InfluxConfig, InfluxConnection
from stores.influxdb.writer import compress
from tests.influxd import Influxd
from tests.ports import free_port
from tests.stand_in import Answer, StandIn
from tests.stores.making import START, ask, gpu, one

LINE = compress(b"m v=1 5")


@pytest.fixture
def connection(door: StandIn, influx_config: InfluxConfig) -> Iterator[InfluxConnection]:
    """A connection through the stand-in, to a bucket that is there."""
    InfluxStore(influx_config).ping()
    opened = InfluxConnection(replace(influx_config, url=door.url))
    yield opened
    opened.close()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_server_that_cannot_now_is_to_be_asked_again(
    door: StandIn, connection: InfluxConnection, status: int
) -> None:
    door.script.append(Answer(status, '{"code":"x","message":"too\\nbusy"}'))
    with pytest.raises(StoreUnavailable, match=f"does not answer now: {status} too busy") as caught:
        connection.write(LINE)
    assert caught.value.retry_after is None
    connection.write(LINE)


@pytest.mark.parametrize(
    ("said", "seconds"), [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("100000", 300.0), ("soon", None)]
)
def test_retry_after_is_told_on(door: StandIn, connection: InfluxConnection, said: str, seconds: float | None) -> None:
    door.script.append(Answer(429, "", {"Retry-After": said}))
    with pytest.raises(StoreUnavailable) as caught:
        connection.write(LINE)
    assert caught.value.retry_after == seconds


def test_retry_after_may_be_a_date(door: StandIn, connection: InfluxConnection) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    door.script.append(Answer(503, "", {"Retry-After": at}))
    with pytest.raises(StoreUnavailable) as caught:
        connection.write(LINE)
    assert caught.value.retry_after == pytest.approx(60, abs=5)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_has_the_servers_words(door: StandIn, connection: InfluxConnection, status: int) -> None:
    door.script.append(Answer(status, '{"code":"x","message":"no such thing"}'))
    with pytest.raises(InfluxRefused) as caught:
        connection.write(LINE)
    assert (caught.value.status, caught.value.reason, caught.value.retriable) == (status, "no such thing", False)


def test_an_answer_that_is_no_json_is_quoted_as_it_is(door: StandIn, connection: InfluxConnection) -> None:
    door.script.append(Answer(400, "<html>bad\ngateway</html>"))
    with pytest.raises(InfluxRefused, match="400 <html>bad gateway</html>"):
        connection.write(LINE)


def test_a_wrong_token_names_the_setting_and_may_be_put_right(influxd: Influxd, influx_config: InfluxConfig) -> None:
    wrong = InfluxConnection(replace(influx_config, token="wrong"))
    with pytest.raises(StoreUnavailable, match=r"does not take the token \(INFLUXDB_TOKEN\): 401"):
        wrong.write(LINE)
    wrong.close()


def test_a_server_that_is_away_is_named() -> None:
    connection = InfluxConnection(InfluxConfig(f"http://127.0.0.1:{free_port()}", "t", "o", "b"))
    with pytest.raises(
        StoreUnavailable, match=r"InfluxDB at http://127.0.0.1:[0-9]+ does not answer: connection refused"
    ):
        connection.write(LINE)


def test_a_name_that_is_nowhere_is_named() -> None:
    connection = InfluxConnection(InfluxConfig("http://nowhere.invalid:8086", "t", "o", "b"))
    with pytest.raises(StoreUnavailable, match=r"InfluxDB at http://nowhere.invalid:8086 does not answer: ") as caught:
        connection.write(LINE)
    assert "\n" not in str(caught.value)
    assert "object at" not in str(caught.value)


def test_a_server_that_says_nothing_is_given_up(
    door: StandIn, connection: InfluxConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "WRITE_TIMEOUT", 0.2)
    door.script.append(Answer(204, delay=1.0))
    with pytest.raises(StoreUnavailable, match="timed out"):
        connection.write(LINE)
    connection.write(LINE)


def test_a_port_that_takes_connections_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WRITE_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = InfluxConnection(InfluxConfig(f"http://127.0.0.1:{silent.getsockname()[1]}", "t", "o", "b"))
        with pytest.raises(StoreUnavailable, match="timed out"):
            connection.write(LINE)
        connection.close()


def test_a_connection_that_was_dropped_is_opened_again_once(door: StandIn, connection: InfluxConnection) -> None:
    door.script.append(Answer())
    connection.write(LINE)
    assert len(door.seen) == 2
    door.script += [Answer(), Answer()]
    with pytest.raises(StoreUnavailable, match=r"does not answer: .*without response"):
        connection.write(LINE)


def test_a_bucket_that_is_gone_is_told_apart(influxd: Influxd, connection: InfluxConnection) -> None:
    influxd.drop_bucket(connection.config.bucket)
    with pytest.raises(NoSuchBucket):
        connection.write(LINE)
    with pytest.raises(NoSuchBucket):
        connection.query("SELECT * FROM gpu", {})


def test_a_question_that_is_none_is_refused(connection: InfluxConnection) -> None:
    with pytest.raises(InfluxRefused, match="400 failed to parse query"):
        connection.query("SELECT", {})


def test_an_answer_that_is_cut_off_is_no_answer(door: StandIn, connection: InfluxConnection) -> None:
    door.away = Answer(200, '{"results":[{"series"')
    with pytest.raises(StoreUnavailable, match="an answer that cannot be read"):
        connection.query("SELECT * FROM gpu", {})


@pytest.mark.parametrize("words", ["query timeout exceeded", "max-concurrent-queries limit exceeded"])
def test_a_question_the_server_has_no_time_for_is_to_be_asked_again(
    door: StandIn, connection: InfluxConnection, words: str
) -> None:
    door.away = Answer(200, json.dumps({"results": [{"error": words}]}))
    with pytest.raises(StoreUnavailable, match=words):
        connection.query("SELECT * FROM gpu", {})


def test_a_closed_connection_opens_again(connection: InfluxConnection) -> None:
    connection.close()
    connection.write(LINE)


def test_many_threads_share_it(connection: InfluxConnection) -> None:
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for step in range(10):
                connection.write(compress(f"m,t=a v=1 {number * 100 + step}".encode()))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert connection.query("SELECT count(v) FROM m", {})[0].values[0][1] == 80


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # newer Pythons warn of any fork with threads
def test_a_child_of_a_fork_has_its_own_connections(influx_store: InfluxStore) -> None:
    influx_store.write([one(gpu(), START, U=1.0)])
    child = os.fork()
    if child == 0:
        try:
            os._exit(len(ask(influx_store)))
        finally:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert len(ask(influx_store)) == 1


def test_a_token_that_is_no_text_for_a_header_is_named() -> None:
    with pytest.raises(StoreError, match="INFLUXDB_TOKEN"):
        InfluxStore(InfluxConfig("http://127.0.0.1:1", "tökén", "o", "b"))


EMPTY = b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"results":[{}]}'
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


def serve_all(*answers: tuple[bytes, ...]) -> Server:
    """A connection for each tuple, and on it these answers."""
    return Server(answers=answers)


def chunked(*lines: bytes, whole: bool = True) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in lines)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + (b"0\r\n\r\n" if whole else b"")


def part(*times: int) -> bytes:
    return b'{"results":[{"series":[{"name":"gpu","columns":["time"],"values":[%s]}]}]}\n' % b",".join(
        b"[%d]" % time_ns for time_ns in times
    )


@contextmanager
def streaming(answer: bytes) -> Iterator[Iterator[ResultSeries]]:
    server = serve_all((answer,))
    connection = InfluxConnection(InfluxConfig(f"http://127.0.0.1:{server.port}", "t", "o", "b"))
    try:
        yield connection.stream("SELECT 1", {}, 10)
    finally:
        connection.close()
        server.close()


def test_an_answer_is_taken_in_parts_wherever_they_are_cut() -> None:
    with streaming(chunked(part(3, 2), part(1)[:20], part(1)[20:])) as series:
        assert [each.values for each in series] == [[[3], [2]], [[1]]]


def test_an_answer_that_breaks_off_is_unavailable() -> None:
    with streaming(chunked(part(3, 2), part(1)[:20], whole=False)) as series, pytest.raises(StoreUnavailable):
        list(series)


def test_an_error_in_the_middle_of_an_answer_is_told() -> None:
    with streaming(chunked(part(3), b'{"results":[{"error":"query-timeout limit exceeded"}]}\n')) as series:
        assert next(series).values == [[3]]
        with pytest.raises(StoreUnavailable, match="timeout"):
            next(series)


@contextmanager
def asking(server: Server, path: str = "") -> Iterator[InfluxConnection]:
    connection = InfluxConnection(InfluxConfig(f"http://127.0.0.1:{server.port}{path}", "t", "o", "b"))
    try:
        yield connection
    finally:
        connection.close()
        server.close()


def test_one_connection_serves_many_questions_below_a_path() -> None:
    server = serve_all((EMPTY, chunked(part(1)), EMPTY))
    with asking(server, "/prefix/") as connection:
        assert connection.query("SELECT 1", {}) == []
        assert [each.values for each in connection.stream("SELECT 1", {}, 10)] == [[[1]]]
        assert connection.query("SELECT 1", {}) == []
    assert server.connections == 1
    assert server.seen[0].startswith(b"POST /prefix/query HTTP/1.1\r\n")
    assert b"\r\n\r\nq=SELECT+1&" in server.seen[0]
    assert b"Authorization: Token t\r\n" in server.seen[0]
    assert b"Accept: application/x-msgpack\r\n" in server.seen[0]


def test_a_question_of_any_length_goes_into_the_body() -> None:
    server = serve_all((EMPTY,))
    with asking(server) as connection:
        connection.query("x" * 5000, {})
    assert server.seen[0].startswith(b"POST /query HTTP/1.1\r\n")
    assert b"x" * 5000 in server.seen[0].partition(b"\r\n\r\n")[2]


def test_an_answer_that_is_left_closes_its_connection() -> None:
    server = serve_all((chunked(part(1), part(2), whole=False),), (EMPTY,))
    with asking(server) as connection:
        stream = connection.stream("SELECT 1", {}, 10)
        assert next(stream).values == [[1]]
        stream.close()
        assert connection.query("SELECT 1", {}) == []
    assert server.connections == 2
