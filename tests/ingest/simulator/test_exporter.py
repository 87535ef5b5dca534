from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from ingest.simulator.exporter import FakeConfig, fake_exporters
from ingest.simulator.fleet import ALL_METRICS, FleetShape
from ingest.simulator.versions import GENERATIONS
from tests.ingest.processes import ROOT, wait_until
from tests.ports import free_port


async def test_each_host_has_an_exporter_of_its_kind() -> None:
    config = FakeConfig(shape=FleetShape(7, 2), port=0, hanging=1, garbage=1)
    async with fake_exporters(config) as exporters, aiohttp.ClientSession() as session:
        kinds = [each.kind for each in exporters]
        assert kinds == ["hanging", "garbage", *[GENERATIONS[number % 5] for number in range(2, 7)]]
        with pytest.raises(TimeoutError):
            async with session.get(exporters[0].url, timeout=aiohttp.ClientTimeout(total=0.2)):
                pass
        async with session.get(exporters[1].url) as answer:
            assert (await answer.read())[:2] == b"\0\1"
        pages = {}
        for each in exporters[2:]:
            async with session.get(each.url) as answer:
                assert answer.content_type == "text/plain"
                pages[each.kind] = await answer.text()
    assert "DCGM_FI_DEV_SM_CLOCK_HERTZ{" in pages["4.9"]
    assert "dcgm_sm_clock{" in pages["1.x"]
    assert 'Hostname="synthetic-' in pages["4.5"]
    assert 'hostname="synthetic-' in pages["4.8.3"]


async def test_ports_in_a_row_and_a_port_that_is_taken() -> None:
    port = free_port()
    async with fake_exporters(FakeConfig(shape=FleetShape(1, 1), port=port)) as exporters:
        assert exporters[0].url == f"http://127.0.0.1:{port}/metrics"
        with pytest.raises(OSError, match="in use"):
            async with fake_exporters(FakeConfig(shape=FleetShape(1, 1), port=port)):
                await asyncio.sleep(0)


async def test_one_host_in_every_generation_at_one_moment_for_ever() -> None:
    config = FakeConfig(shape=FleetShape(2, 1, metrics=ALL_METRICS), port=0, each=True, still=True)
    async with fake_exporters(config) as exporters, aiohttp.ClientSession() as session:
        assert [(each.host, each.kind) for each in exporters] == [
            (f"synthetic-00{host}", kind) for host in (1, 2) for kind in GENERATIONS
        ]
        pages = []
        for _ in range(2):
            async with session.get(exporters[1].url) as answer:
                pages.append(await answer.text())
            await asyncio.sleep(1.1)  # a fleet that is not still moves on each second
    assert pages[0] == pages[1]
    assert 'DCGM_FI_DEV_CPU_UTIL_TOTAL{cpu="0"' in pages[0]


@pytest.mark.acceptance
def test_a_dry_run_of_a_streamer_finds_them_all(tmp_path: Path) -> None:
    listed = tmp_path / "targets.txt"
    environ = {**os.environ, "STATE_DIR": str(tmp_path)}
    command = [sys.executable, str(ROOT / "manage.py"), "fakeexporter", "--hosts", "4", "--gpus-per-host", "2"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--garbage", "1", "--list", str(listed)],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: listed.exists() and listed.read_text().count("\n") == 4, "the list of exporters")
        dry = subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), "stream", "--source", "dcgm", "--targets", str(listed), "--dry-run"],
            env=environ, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert "150 readings" in dry.stdout
        assert "3 of 4 exporters are up" in dry.stdout
        assert "1 down: the answer is not metrics text" in dry.stdout
        assert "nothing was sent" in dry.stdout
        assert not (tmp_path / "spool").exists()
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "synthetic-001  garbage" in output


@pytest.mark.parametrize("arguments", [["--hosts", "0"], ["--faults", "fire"], ["--generation", "9"], ["--port", "x"]])
def test_bad_arguments_are_named(arguments: list[str]) -> None:
    with pytest.raises(CommandError, match=arguments[0]):
        call_command("fakeexporter", *arguments)


def test_a_port_that_cannot_be_had_is_named() -> None:
    with pytest.raises(CommandError, match="cannot serve 3 exporters from port 65534"):
        call_command("fakeexporter", "--hosts", "3", "--port", "65534")
    assert free_port()
