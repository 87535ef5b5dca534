"""The inventory on a real PostgreSQL, saved to by several processes at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from inventory.packing import unpack
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
        spans = connection.execute(
            "SELECT last_seen - first_seen FROM inventory_gpu WHERE id = ANY(%s)", [[f"GPU-{n}" for n in range(KNOWN)]]
        ).fetchall()
        assert [span.total_seconds() for (span,) in spans] == [last * 60] * KNOWN
        tables = [unpack(data) for (data,) in connection.execute("SELECT data FROM inventory_newestrow").fetchall()]
        newest: dict[tuple[str, str], tuple[int, float]] = {}
        for table in tables:
            for gpu_id, values, times in zip(table.gpu_ids, table.values, table.times_ns, strict=True):
                for name, value, time_ns in zip(table.metric_names, values.tolist(), times.tolist(), strict=True):
                    if time_ns:
                        newest[gpu_id, name] = max(newest.get((gpu_id, name), (0, 0.0)), (time_ns, value))
        for number in range(KNOWN):
            assert newest[f"GPU-{number}", UTIL][1] == last
            # Each metric was told at every seventh step: its newest is kept, whoever saved it when.
            assert {
                name: value
                for (gpu_id, name), (_, value) in newest.items()
                if gpu_id == f"GPU-{number}" and name != UTIL
            } == {f"M{n}": max(step for step in range(last + 1) if step % 7 == n) for n in range(7)}
        new = {
            gpu_id: value for (gpu_id, name), (_, value) in newest.items() if gpu_id.count("-") == 2 and name == UTIL
        }
        assert new == {
            f"GPU-{step}-{n}": step * PROCESSES + PROCESSES - 1 for step in range(rounds) for n in range(NEW)
        }
        deadlocks = connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = 'hammer'").fetchone()
        assert deadlocks == (0,)
