"""The inventory on a real PostgreSQL, saved to by several processes at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.api.serving import ROOT, START_SECONDS, environment, manage
from tests.inventory.building import UTIL
from tests.inventory.hammer import KNOWN, NEW
from tests.postgres import Postgres

PROCESSES, ROUNDS = 4, 6


@pytest.mark.acceptance
def test_processes_that_save_the_same_gpus_never_deadlock_and_never_lose_a_newer_value(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.make_database("hammer")
    environ = environment(tmp_path) | {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "telemetry_site.settings"}
    subprocess.run(manage("migrate", "--verbosity", "0"), env=environ, check=True, timeout=START_SECONDS)
    rounds = int(os.environ.get("HAMMER_ROUNDS", ROUNDS))
    hammers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.inventory.hammer", str(number), str(PROCESSES), str(rounds)],
            cwd=ROOT,
            env=environ,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    try:
        told = [each.communicate(timeout=100 + rounds)[1] for each in hammers]
    finally:
        for each in hammers:
            each.kill()
    assert [each.returncode for each in hammers] == [0] * PROCESSES, told

    last = rounds * PROCESSES - 1
    with psycopg.connect(url) as connection:
        known = connection.execute(
            "SELECT latest, last_seen - first_seen FROM inventory_gpu WHERE id = ANY(%s)",
            [[f"GPU-{n}" for n in range(KNOWN)]],
        ).fetchall()
        assert len(known) == KNOWN
        for latest, span in known:
            assert latest[UTIL][0] == last
            # Each metric was told at every seventh step: its newest is kept, whoever saved it when.
            assert {name: value for name, (value, _) in latest.items() if name != UTIL} == {
                f"M{n}": max(step for step in range(last + 1) if step % 7 == n) for n in range(7)
            }
            assert span.total_seconds() == last * 60
        found = connection.execute("SELECT id, latest -> %s -> 0 FROM inventory_gpu", [UTIL]).fetchall()
        new = {gpu_id: value for gpu_id, value in found if gpu_id.count("-") == 2}
        assert new == {
            f"GPU-{step}-{n}": step * PROCESSES + PROCESSES - 1 for step in range(rounds) for n in range(NEW)
        }
        deadlocks = connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = 'hammer'").fetchone()
        assert deadlocks == (0,)
