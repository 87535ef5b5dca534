"""telemetry_site.database: DATABASE_URL, on a real PostgreSQL where one is needed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from telemetry_site.database import database_config
from tests.api.serving import START_SECONDS, environment, manage, serving
from tests.postgres import Postgres


def test_without_a_url_it_is_a_sqlite_file_of_the_state_folder(tmp_path: Path) -> None:
    config = database_config("", tmp_path)
    assert (config["ENGINE"], config["NAME"]) == ("django.db.backends.sqlite3", tmp_path / "inventory.sqlite3")
    assert config["OPTIONS"]["transaction_mode"] == "IMMEDIATE"


def test_a_sqlite_url_names_a_file(tmp_path: Path) -> None:
    config = database_config(f"sqlite:///{tmp_path}/x.db", Path("elsewhere"))
    assert config["NAME"] == f"{tmp_path}/x.db"
    assert config["OPTIONS"]["transaction_mode"] == "IMMEDIATE"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_a_postgresql_url_is_pooled_and_takes_parameters(scheme: str) -> None:
    config = database_config(f"{scheme}://gpu:p%40ss%2F@db.example:5433/inventory?sslmode=require", Path("x"))
    told = {name: config[name] for name in ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")}
    assert told == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "inventory",
        "USER": "gpu",
        "PASSWORD": "p@ss/",
        "HOST": "db.example",
        "PORT": 5433,
    }
    assert config["OPTIONS"]["sslmode"] == "require"
    assert config["OPTIONS"]["pool"]["max_size"] >= 4  # as many threads as a web worker has
    assert config["CONN_HEALTH_CHECKS"]


@pytest.mark.parametrize(
    "url",
    [
        "mysql://gpu:hunter2@h/d",
        "hunter2",
        "//gpu:hunter2@h/d",
        "postgres://gpu:hunter2@h:port/d",
        "postgres://gpu:hunt#er2@h:5432/d",
        "postgres://gpu:hunt/er2@h:5432/d",
        "postgres://gpu:hunter2@h:70000/d",
        "postgres://gpu:hunter2@h:0/d",
        "postgres://gpu:hunter2@[::1/d",
        "postgres://gpu:hunter2@h:5432",
        "postgres://gpu:hunter2@h:5432/",
        "postgres://gpu:hunter2@h/d?colour=hunter2",
    ],
)
def test_a_bad_url_is_one_line_without_its_password(url: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        manage("check"), env=environment(tmp_path) | {"DATABASE_URL": url}, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("error: DATABASE_URL: the value ")
    assert "hunt" not in ended.stderr
    assert "postgres://user:password@host:5432/name" in ended.stderr or "colour" in ended.stderr


def migrated(url: str, state_dir: Path) -> dict[str, str]:
    """The environment of services on that database, which has its tables."""
    environ = environment(state_dir) | {"DATABASE_URL": url}
    subprocess.run(manage("migrate", "--verbosity", "0"), env=environ, check=True, timeout=START_SECONDS)
    return environ


def cut_connections(postgres: Postgres, database: str) -> int:
    """End every session on it, as a restart of the server or a firewall would; how many there were."""
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        found = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database]
        ).fetchall()
    return len(found)


@pytest.mark.acceptance
def test_the_web_service_takes_a_new_connection_for_one_that_was_lost(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.make_database("lost")
    migrated(url, tmp_path)
    with serving(tmp_path, DATABASE_URL=url) as service:
        assert service.get("/ready").status == 200
        for _ in range(3):
            assert json.loads(service.get("/api/v1/gpus").body)["count"] == 0
            assert cut_connections(postgres, "lost") > 0
            assert service.get("/api/v1/gpus").status == 200
        assert service.stop(signal.SIGTERM) == 0


@pytest.mark.acceptance
def test_while_the_server_is_away_the_web_service_says_so_and_goes_on_when_it_is_back(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.make_database("away")
    migrated(url, tmp_path)
    with serving(tmp_path, DATABASE_URL=url) as service:
        assert service.get("/ready").status == 200
        postgres.stop(hard=True)
        try:
            for path in ("/ready", "/api/v1/gpus"):
                answer = service.get(path)
                assert answer.status == 503
                assert "Retry-After" in answer.headers
            assert service.get("/health").status == 200
        finally:
            postgres.start()
        deadline = time.monotonic() + 60
        while service.get("/ready").status != 200:
            assert time.monotonic() < deadline
        assert service.get("/api/v1/gpus").status == 200
        assert service.stop(signal.SIGTERM) == 0
    assert postgres.password not in "".join(service.lines)


@pytest.mark.acceptance
def test_a_wrong_password_is_a_line_that_does_not_tell_it(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.url("postgres").replace(postgres.password, "hunter2")
    ended = subprocess.run(
        manage("migrate"),
        env=environment(tmp_path) | {"DATABASE_URL": url, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode != 0
    assert "password authentication failed" in ended.stderr
    assert "hunter2" not in ended.stderr
