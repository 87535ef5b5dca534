"""telemetry_site.health and ``manage.py health``, which are the images' health checks."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from django.core.management import call_command

from telemetry_site.health import main
from tests.broker.certificates import Authority
from tests.ports import free_port

MANAGE = Path(__file__).resolve().parents[2] / "manage.py"
NAMES = {"runbroker": "HTTP_ADDR", "collect": "METRICS_ADDR", "stream": "METRICS_ADDR", "watch": "METRICS_ADDR"}


@contextmanager
def answering(answers: dict[str, tuple[int, bytes]], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server of these paths; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, b"nothing here"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(monkeypatch: pytest.MonkeyPatch, service: str, port: int, *arguments: str) -> int:
    if service == "serve":
        monkeypatch.setenv("HOST", "0.0.0.0")
        monkeypatch.setenv("PORT", str(port))
    else:
        monkeypatch.setenv(NAMES[service], f"0.0.0.0:{port}")
    return main([service, *arguments])


@pytest.mark.parametrize("service", ["runbroker", "collect", "stream", "serve"])
def test_a_service_that_is_well(
    service: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering({"/health": (200, b'{"status":"healthy"}')}) as port:
        assert ask(monkeypatch, service, port) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"status":"unhealthy","reasons":["the disk is full","late"]}', "the disk is full; late"),
        (b'{"error":"unavailable","message":"the store\\ndoes not answer"}', "the store does not answer"),
        (b"<html>\nbroken", "<html> broken"),
        (b"", "nothing"),
    ],
)
def test_what_is_wrong_is_told_on_one_line(
    body: bytes, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering({"/health": (503, body)}) as port:
        assert ask(monkeypatch, "runbroker", port) == 1
    assert capsys.readouterr().err == f"runbroker: /health says 503: {reason}\n"


def test_ready_asks_for_more_than_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering({"/health": (200, b""), "/ready": (503, b"")}) as port:
        assert ask(monkeypatch, "serve", port) == 0
        assert ask(monkeypatch, "serve", port, "--ready") == 1
        assert ask(monkeypatch, "runbroker", port, "--ready") == 0  # which tells all at /health


def test_a_broker_with_tls_is_asked_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = Authority(tmp_path).sign("broker")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    monkeypatch.setenv("BROKER_TLS_CERT", cert)
    with answering({"/health": (200, b"")}, context) as port:
        assert ask(monkeypatch, "runbroker", port) == 0
    with answering({"/health": (200, b"")}) as port:
        assert ask(monkeypatch, "runbroker", port) == 1  # which speaks none


def test_nobody_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(monkeypatch, "serve", free_port()) == 1
    assert "does not answer: Connection refused" in capsys.readouterr().err


def test_somebody_who_never_answers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert ask(monkeypatch, "serve", silent.getsockname()[1], "--timeout", "50ms") == 1
    assert "does not answer: timed out" in capsys.readouterr().err


def test_somebody_who_speaks_no_http(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            peer, _ = other.accept()
            peer.recv(100)
            peer.sendall(b"SSH-2.0\r\n")
            peer.close()

        thread = threading.Thread(target=answer)
        thread.start()
        assert ask(monkeypatch, "serve", other.getsockname()[1]) == 1
        thread.join()
    assert "no HTTP" in capsys.readouterr().err


def test_a_service_that_listens_nowhere_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("METRICS_ADDR", raising=False)
    assert main(["stream"]) == 1
    assert "METRICS_ADDR is not set" in capsys.readouterr().err
    monkeypatch.setenv("HTTP_ADDR", "nonsense")
    assert main(["runbroker"]) == 1
    assert "HTTP_ADDR" in capsys.readouterr().err


def test_it_loads_no_django() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from telemetry_site.health import main; main(['serve']);"
        "print([name for name in ('django', 'urllib.request', 'asyncio') if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(MANAGE.parent)], env={"PORT": str(free_port())}, capture_output=True, text=True
    )
    assert ran.stdout == "[]\n"


def test_manage_py_answers_it_itself_and_lists_it() -> None:
    ran = subprocess.run(
        [sys.executable, MANAGE, "health", "runbroker"],
        env={"HTTP_ADDR": f":{free_port()}"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("runbroker: 127.0.0.1:")
    with pytest.raises(SystemExit):
        call_command("health", "stream")
