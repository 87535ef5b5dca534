"""The real web service, and clients that are slow on purpose: others are answered meanwhile, and the slow ones are cut off."""

from __future__ import annotations

import json
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.api.serving import ROOT, START_SECONDS, Service, environment, listening, migrated, serving

HOST = b"Host: localhost\r\n"
LARGE = b"GET /static/drf_spectacular_sidecar/redoc/bundles/redoc.standalone.js HTTP/1.1\r\n" + HOST + b"\r\n"
FORM = b"POST /login HTTP/1.1\r\n" + HOST + b"Content-Type: application/x-www-form-urlencoded\r\n"
STOPS: dict[str, bytes] = {
    "nothing": b"",
    "half a line": b"GET /api",
    "half a head": b"GET /api/v1/gpus HTTP/1.1\r\n" + HOST + b"X-Slow: ",
    "no body": FORM + b"Content-Length: 500\r\n\r\n",
    "half a body": FORM + b"Content-Length: 500\r\n\r\nusername=",
    "half a chunk": FORM + b"Transfer-Encoding: chunked\r\n\r\n50\r\nusername=",
    "no last chunk": FORM + b"Transfer-Encoding: chunked\r\n\r\n3\r\na=b\r\n",
    "no 100": FORM + b"Expect: 100-continue\r\nContent-Length: 500\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "unread": LARGE * 20,
    "unread, and half another": LARGE + b"GET /",
    "unread, over HTTP/1.0": LARGE.replace(b"HTTP/1.1", b"HTTP/1.0"),
}


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with a migrated database."""
    return migrated(tmp_path_factory.mktemp("state"))


@contextmanager
def gunicorn(state_dir: Path, *flags: str, wait_for: Path | None = None, **short: float) -> Iterator[Service]:
    """``gunicorn`` itself, with short times and one worker. It listens on a free port, unless the flags say where."""
    bind = () if "--bind" in flags else ("--bind", "127.0.0.1:0")
    times = {"SWEEP_SECONDS": 0.1, **short}
    config = str(Path(__file__).with_name("short_limits.py"))
    environ = environment(state_dir, SHORT_LIMITS=json.dumps(times), WAIT_FOR=str(wait_for), WEB_CONCURRENCY="1")
    with listening([sys.executable, "-m", "gunicorn", "--config", config, *bind, *flags], environ) as service:
        yield service


@contextmanager
def client(service: Service, sends: bytes = b"", buffer: int = 4096) -> Iterator[socket.socket]:
    """A connection that takes little."""
    where = urlsplit(service.address)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.settimeout(START_SECONDS)
        sock.connect((str(where.hostname), where.port or 0))
        sock.sendall(sends)
        yield sock


def read_all(sock: socket.socket) -> bytes:
    """All until the other side closes; it may do so with a reset."""
    found = b""
    try:
        while data := sock.recv(1 << 16):
            found += data
    except ConnectionError:
        pass
    return found


def until_cut(*socks: socket.socket, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Return when the other side has reset one of the connections, without reading."""
    poll = select.poll()
    for sock in socks:
        poll.register(sock, 0)  # errors and hang-ups alone
    deadline = time.monotonic() + START_SECONDS
    while not poll.poll(50):
        assert time.monotonic() < deadline, "the service still waits for this client"
        try:
            meanwhile()
        except ConnectionError:
            return


# --- while clients are slow, others are answered ----------------------------------------------------------------------
@pytest.mark.parametrize("stop", STOPS)
def test_slow_clients_delay_nobody(state_dir: Path, stop: str) -> None:
    """With the default times, which are far longer than this test."""
    with serving(state_dir) as service, ExitStack() as held:
        for _ in range(40):
            held.enter_context(client(service, STOPS[stop]))
        for _ in range(3):
            for path in ("/health", "/ready", "/api/v1/gpus", "/api/v1/telemetry?page_size=1"):
                assert service.get(path).status == 200


def test_clients_that_trickle_delay_nobody(state_dir: Path) -> None:
    with serving(state_dir) as service, ExitStack() as held:
        socks = [held.enter_context(client(service, b"GET /api/v1/gpus HTTP/1.1\r\nX: ")) for _ in range(40)]
        for _ in range(20):
            for sock in socks:
                sock.sendall(b"a")
            assert service.get("/health").status == 200
            assert service.get("/api/v1/gpus").status == 200


def test_probes_are_answered_while_every_thread_is_busy(state_dir: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with gunicorn(state_dir, "--threads", "2", wait_for=go, QUEUE_SECONDS=0.2) as service, ExitStack() as held:
        wait = b"GET /wait HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n"
        waiting = [held.enter_context(client(service, wait)) for _ in range(12)]
        for _ in range(5):
            assert service.get("/health").status == 200
            assert service.get("/ready").status == 200
        time.sleep(0.3)  # longer than one may wait for a thread
        go.touch()
        answers = [read_all(sock) for sock in waiting]
    # Those that waited too long for a thread are told so.
    begun = [answer for answer in answers if b" 302 " in answer.splitlines()[0]]
    assert len(begun) == 2
    for answer in answers:
        if answer not in begun:
            assert b" 503 " in answer.splitlines()[0]
            assert b"Retry-After: 5\r\n" in answer
            assert b'"error":"unavailable"' in answer


# --- and they are cut off -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stop", [stop for stop in STOPS if "unread" not in stop and stop not in {"nothing", "TLS"}])
def test_a_request_has_a_deadline(state_dir: Path, stop: str) -> None:
    with gunicorn(state_dir, REQUEST_SECONDS=0.5) as service, client(service, STOPS[stop]) as sock:
        answer = read_all(sock)
        if stop == "no 100":
            assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
            answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert b'"error":"request_timeout"' in answer
        assert b"Connection: close\r\n" in answer


@pytest.mark.parametrize("stop", ["half a head", "half a body", "no last chunk"])
def test_trickling_does_not_extend_the_deadline(state_dir: Path, stop: str) -> None:
    with gunicorn(state_dir, REQUEST_SECONDS=1.0) as service, client(service, STOPS[stop]) as sock:
        drop = b"1\r\na\r\n" if "chunk" in stop else b"a"
        until_cut_or_told(sock, lambda: sock.sendall(drop))


def until_cut_or_told(sock: socket.socket, meanwhile: Callable[[], object]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not select.select([sock], [], [], 0.05)[0]:
        assert time.monotonic() < deadline, "the service still waits for this client"
        meanwhile()
    assert read_all(sock).startswith(b"HTTP/1.1 408 ")


def test_a_connection_without_a_request_is_closed_silently(state_dir: Path) -> None:
    with gunicorn(state_dir, "--keep-alive", "1", REQUEST_SECONDS=0.5) as service:
        with client(service) as sock:
            assert read_all(sock) == b""
        with client(service, b"\r\n") as sock:
            assert read_all(sock) == b""
        with client(service, b"GET /health HTTP/1.1\r\n\r\n") as sock:
            assert read_all(sock).endswith(b'{"status":"healthy"}')


def test_an_answer_has_a_deadline(state_dir: Path) -> None:
    with gunicorn(state_dir, STALL_SECONDS=0.5) as service, client(service, LARGE * 20) as sock:
        until_cut(sock)
        assert service.get("/health").status == 200


def test_taking_a_little_does_not_extend_the_deadline_of_an_answer(state_dir: Path) -> None:
    with ExitStack() as held:
        service = held.enter_context(gunicorn(state_dir, SEND_SECONDS=1.0, MIN_BYTES_PER_SECOND=1e12))
        sock = held.enter_context(client(service, LARGE * 20))
        until_cut(sock, meanwhile=lambda: sock.recv(100))


def test_an_answer_that_is_taken_steadily_is_whole(state_dir: Path) -> None:
    """However slow that is, as long as it is faster than the limit."""
    with gunicorn(state_dir, STALL_SECONDS=1.0, SEND_SECONDS=1.0, MIN_BYTES_PER_SECOND=100_000) as service:
        whole = service.get("/static/drf_spectacular_sidecar/redoc/bundles/redoc.standalone.js").body
        with client(service, LARGE.replace(HOST, HOST + b"Connection: close\r\n")) as sock:
            found = b""
            while data := sock.recv(20_000):
                found += data
                time.sleep(0.01)
    assert found.endswith(whole)


def test_the_oldest_that_waits_makes_place_for_a_new_one(state_dir: Path) -> None:
    with gunicorn(state_dir, "--worker-connections", "20") as service, ExitStack() as held:
        socks = [held.enter_context(client(service, b"GET / HTTP/1.1\r\nX: ")) for _ in range(60)]
        assert service.get("/health").status == 200
        until_cut(socks[0])
        assert service.stop(signal.SIGTERM) == 0
    told = [line for line in service.lines if "more than 20 connections" in line]
    assert 1 <= len(told) <= 2


def test_answers_that_nobody_takes_do_not_fill_the_memory(state_dir: Path) -> None:
    short = {"MAX_WAITING_BYTES": 1_000_000, "STALL_SECONDS": 1e9, "SEND_SECONDS": 1e9}
    with ExitStack() as held:
        service = held.enter_context(gunicorn(state_dir, **short))  # type: ignore[arg-type]
        socks = [held.enter_context(client(service, LARGE * 20)) for _ in range(6)]
        until_cut(*socks)
        assert service.get("/api/v1/gpus").status == 200


# --- honest clients -------------------------------------------------------------------------------------------------------
def test_pipelined_requests_are_answered_in_turn(state_dir: Path) -> None:
    paths = [b"/health", b"/api/v1/gpus", b"/ready", b"/api/v1", b"/health"]
    sends = b"".join(b"GET %s HTTP/1.1\r\n%s\r\n" % (path, HOST) for path in paths[:-1])
    with serving(state_dir) as service, client(service, sends) as sock:
        sock.sendall(b"HEAD /health HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")
        bodies = [part.partition(b"\r\n\r\n")[2] for part in read_all(sock).split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert [body[:9] for body in bodies] == [b'{"status"', b'{"data":[', b'{"status"', b'{"fleet":', b""]
    assert not any("body" in line for line in service.lines)  # gunicorn warns of one that is dropped


def test_a_form_may_come_in_chunks_and_wait_for_a_100(state_dir: Path) -> None:
    with serving(state_dir) as service:
        page = service.get("/login")
        cookie = page.headers["Set-Cookie"].partition(";")[0]
        token = page.body.decode().partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
        form = f"csrfmiddlewaretoken={token}&username=nobody&password=wrong".encode()
        head = FORM + b"Connection: close\r\nCookie: " + cookie.encode() + b"\r\nExpect: 100-continue\r\n"
        for body, how in (
            (b"%x\r\n%s\r\n0\r\n\r\n" % (len(form), form), b"Transfer-Encoding: chunked"),
            (form, b"Content-Length: %d" % len(form)),
        ):
            with client(service, head + how + b"\r\n\r\n") as sock:
                assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
                sock.sendall(body)
                answer = read_all(sock)
            # Django has read the form: the token was right, the password was not.
            assert b"HTTP/1.1 200 OK" in answer
            assert b"100 Continue" not in answer
            assert b"nobody" in answer


def test_http_1_0_is_closed_after_its_answer_unless_asked_otherwise(state_dir: Path) -> None:
    with serving(state_dir) as service:
        with client(service, b"GET /health HTTP/1.0\r\n\r\n") as sock:
            assert b"Connection: close\r\n" in read_all(sock)
        with client(service, b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n") as sock:
            assert b"Connection: keep-alive\r\n" in sock.recv(10_000)
            sock.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            assert b"Connection: close\r\n" in read_all(sock)


def test_a_client_that_only_stops_sending_gets_its_answer(state_dir: Path) -> None:
    with serving(state_dir) as service, client(service, b"GET /api/v1/gpus HTTP/1.1\r\n" + HOST + b"\r\n") as sock:
        sock.shutdown(socket.SHUT_WR)
        assert b'{"data":[' in read_all(sock)


def test_it_listens_in_several_places(state_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with gunicorn(state_dir, "--bind", "127.0.0.1:0", "--bind", f"unix:{path}") as service:
        assert service.get("/health").status == 200
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(START_SECONDS)
            sock.connect(str(path))
            sock.sendall(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert read_all(sock).endswith(b'{"status":"healthy"}')


# --- the end ----------------------------------------------------------------------------------------------------------------
def test_what_is_being_answered_is_answered_before_it_stops(state_dir: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with gunicorn(state_dir, wait_for=go) as service, ExitStack() as held:
        idle = held.enter_context(client(service, b"GET /health HTTP/1.1\r\n\r\n"))
        assert b"Connection: keep-alive" in idle.recv(10_000)
        asked = held.enter_context(client(service, b"GET /wait HTTP/1.1\r\n" + HOST + b"\r\n"))
        assert service.get("/health").status == 200
        service.process.send_signal(signal.SIGTERM)
        assert read_all(idle) == b""
        go.touch()
        answer = read_all(asked)
        assert answer.startswith(b"HTTP/1.1 302 ")
        assert b"Connection: close\r\n" in answer
        assert service.process.wait(START_SECONDS) == 0


def test_a_request_that_does_not_end_does_not_keep_it_from_stopping(state_dir: Path, tmp_path: Path) -> None:
    with gunicorn(state_dir, wait_for=tmp_path / "never", STOP_SECONDS=0.5) as service, ExitStack() as held:
        held.enter_context(client(service, b"GET / HT"))
        held.enter_context(client(service, b"GET /wait HTTP/1.1\r\n" + HOST + b"\r\n"))
        assert service.get("/health").status == 200
        assert service.stop(signal.SIGTERM) == 0
    assert any("before 1 answers were complete" in line for line in service.lines)


@pytest.mark.parametrize("flags", [("--certfile", __file__), ("--proxy-protocol",)])
def test_what_it_does_not_speak_is_refused_at_the_start(state_dir: Path, flags: tuple[str, ...]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "gunicorn", *flags],
        env=environment(state_dir),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    assert ended.returncode == 1
    assert "error: this service speaks plain HTTP/1.1" in ended.stderr
