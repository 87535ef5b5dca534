from __future__ import annotations

import asyncio
import io
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from telemetry_site.supervisor import Service, ServiceFailed, Supervisor

ROOT = Path(__file__).resolve().parents[2]

# A service: says that it is up, runs until SIGTERM, says its name when it stops.
RUNS_ON = """
import signal, sys, threading
signal.signal(signal.SIGTERM, lambda *_: (print(sys.argv[1], "stopped", flush=True), sys.exit(0)))
print(sys.argv[1], "up", flush=True)
threading.Event().wait()
"""
SERVES = """
import http.server, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        self.send_response(200 if Handler.asked > 2 else 503); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def script(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


class Output(io.StringIO):
    """Collects lines and lets a test wait for one."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = asyncio.Event()

    def write(self, text: str) -> int:
        self.changed.set()
        return super().write(text)

    async def until(self, text: str) -> None:
        async with asyncio.timeout(20):
            while text not in self.getvalue():
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
def output() -> Output:
    return Output()


@pytest_asyncio.fixture
async def supervisor(output: Output) -> AsyncIterator[Supervisor]:
    made = Supervisor(os.environ, output)
    yield made
    await made.stop()


async def test_services_stop_in_reverse_order_and_their_lines_carry_their_names(
    supervisor: Supervisor, output: Output
) -> None:
    for name in ("first", "second"):
        await supervisor.start(Service(name, script(RUNS_ON, name)))
        await output.until(f"{name} up")
    assert await supervisor.stop()
    lines = output.getvalue().splitlines()
    assert lines == [
        "first     | first up",
        "second    | second up",
        "second    | second stopped",
        "first     | first stopped",
    ]


async def test_a_service_is_ready_when_it_answers_200(supervisor: Supervisor, unused_tcp_port: int) -> None:
    await supervisor.start(
        Service("web", script(SERVES, str(unused_tcp_port)), ready_url=f"http://127.0.0.1:{unused_tcp_port}/")
    )
    assert await supervisor.stop()


async def test_a_service_that_ends_before_it_is_ready_is_a_failure(
    supervisor: Supervisor, unused_tcp_port: int
) -> None:
    service = Service(
        "web", script("print('no luck'); raise SystemExit(3)"), ready_url=f"http://127.0.0.1:{unused_tcp_port}/"
    )
    with pytest.raises(ServiceFailed, match="web ended with exit status 3"):
        await supervisor.start(service)


async def test_a_service_that_never_gets_ready_is_a_failure(supervisor: Supervisor, unused_tcp_port: int) -> None:
    service = Service("slow", script(RUNS_ON, "slow"), ready_url=f"http://127.0.0.1:{unused_tcp_port}/")
    with pytest.raises(ServiceFailed, match=r"slow was not ready after 0\.5 s"):
        await supervisor.start(service, ready_seconds=0.5)


async def test_a_clean_end_of_a_finished_capture_stops_nothing(supervisor: Supervisor, output: Output) -> None:
    stop = asyncio.Event()
    await supervisor.start(Service("broker", script(RUNS_ON, "broker")))
    await supervisor.start(Service("streamer", script("print('streamed')"), may_end=True))
    waiting = asyncio.create_task(supervisor.wait(stop))
    await output.until("streamer is done")
    await output.until("broker up")
    assert not waiting.done()
    stop.set()
    await waiting


@pytest.mark.parametrize(
    ("code", "ending"),
    [("raise SystemExit(1)", "exit status 1"), ("import os; os.kill(os.getpid(), 9)", "signal SIGKILL")],
)
async def test_any_other_end_of_the_streamer_is_a_failure(supervisor: Supervisor, code: str, ending: str) -> None:
    await supervisor.start(Service("streamer", script(code), may_end=True))
    with pytest.raises(ServiceFailed, match=f"streamer ended with {ending}"):
        await supervisor.wait(asyncio.Event())


async def test_even_a_clean_end_of_a_service_is_a_failure(supervisor: Supervisor) -> None:
    await supervisor.start(Service("broker", script("pass")))
    with pytest.raises(ServiceFailed, match="broker ended with exit status 0"):
        await supervisor.wait(asyncio.Event())


async def test_a_service_that_does_not_stop_is_killed_and_that_is_not_clean(
    supervisor: Supervisor, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telemetry_site.supervisor.STOP_SECONDS", 0.2)
    deaf = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    await supervisor.start(Service("deaf", script(deaf)))
    await output.until("up")
    assert not await supervisor.stop()
    assert "deaf ended with signal SIGKILL" in output.getvalue()


async def test_a_line_longer_than_the_buffer_does_not_end_the_echo(supervisor: Supervisor, output: Output) -> None:
    await supervisor.start(Service("long", script("print('x' * (3 << 20)); print('after')"), may_end=True))
    await output.until("long      | after")


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_services_end_when_their_supervisor_is_killed() -> None:
    code = (
        "import asyncio, os, sys\n"
        "from telemetry_site.supervisor import Service, Supervisor\n"
        "async def main():\n"
        "    supervisor = Supervisor(os.environ)\n"
        "    await supervisor.start(Service('child', [sys.executable, '-c', 'import os,time; print(os.getpid(), flush=True); time.sleep(60)']))\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline().split("|")[1])
        descriptor = os.pidfd_open(child)
        process.send_signal(signal.SIGKILL)
        assert select.select([descriptor], [], [], 20)[0], "the child is still there"
        os.close(descriptor)
