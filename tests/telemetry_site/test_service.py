from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from telemetry_site.service import stop_signals

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_the_first_signal_asks_to_stop(number: signal.Signals) -> None:
    stop = asyncio.Event()
    before = signal.getsignal(number)
    with stop_signals(stop):
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 10)
        assert signal.getsignal(number) is signal.SIG_DFL  # so that a second one ends the process
    assert signal.getsignal(number) == before


async def test_nohup_keeps_it_going() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals(asyncio.Event()):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_off_the_main_thread_no_signal_is_taken() -> None:
    async def run() -> bool:
        with stop_signals(asyncio.Event()):
            return True

    before = signal.getsignal(signal.SIGTERM)
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(asyncio.run(run())))
    thread.start()
    thread.join(10)
    assert seen == [True]
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_second_signal_ends_the_process() -> None:
    code = (
        "import asyncio\n"
        "from telemetry_site.service import stop_signals\n"
        "async def main():\n"
        "    stop = asyncio.Event()\n"
        "    with stop_signals(stop):\n"
        "        print('ready', flush=True)\n"
        "        await stop.wait()\n"
        "        print('asked', flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
