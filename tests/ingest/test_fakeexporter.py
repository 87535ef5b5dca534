from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from tests.ingest.processes import ROOT, free_port, wait_until


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
        assert "1 down: the answer is no metrics text" in dry.stdout
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
