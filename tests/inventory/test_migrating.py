"""Services on a database that nobody has migrated: SQLite migrates itself, PostgreSQL is waited for."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from inventory.migrating import HOW
from tests.ingest.processes import ROOT, START_SECONDS, Fleet, Service
from tests.postgres import Postgres


def applied(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        (count,) = connection.execute("SELECT count(*) FROM django_migrations").fetchone()
    connection.close()
    return int(count)


def manage(fleet: Fleet, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=fleet.environ,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )


@pytest.mark.acceptance
def test_processes_that_migrate_a_fresh_database_at_once_all_succeed(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    commands = [
        subprocess.Popen([sys.executable, "manage.py", "migrate", "-v", "0"], cwd=ROOT, env=fleet.environ)
        for _ in range(5)
    ]
    try:
        assert [each.wait(START_SECONDS) for each in commands] == [0] * 5
    finally:
        for each in commands:
            each.kill()
    assert manage(fleet, "migrate", "--check").returncode == 0


@pytest.mark.acceptance
def test_services_that_start_at_once_on_a_fresh_folder_migrate_it_and_work(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, PORT="0", LOG_FORMAT="human")
    services = [
        Service("broker", fleet, "runbroker"),
        Service("collector", fleet, "collect"),
        Service("second", fleet, "collect", "--collector-id=second"),
        Service("web", fleet, "serve"),
    ]
    try:
        for service in services:
            service.start()
        services[1].wait_for("reading from offset")
        services[2].wait_for("reading from offset")
        services[3].wait_for("Booting worker")
        assert applied(tmp_path / "inventory.sqlite3") > 0
        assert manage(fleet, "migrate", "--check").returncode == 0
        assert [each.returncode for each in services] == [None] * 4
    finally:
        for service in services:
            service.kill()


@pytest.mark.acceptance
def test_a_collector_waits_for_postgresql_to_be_migrated_and_says_how(tmp_path: Path, postgres: Postgres) -> None:
    fleet = Fleet(tmp_path, DATABASE_URL=postgres.make_database("unmigrated"))
    collector = Service("collector", fleet, "collect")
    try:
        collector.start()
        collector.wait_for(HOW)
        assert "collecting" not in collector.log
        assert manage(fleet, "migrate", "-v", "0").returncode == 0
        collector.wait_for("collecting from")
        assert collector.stop()[0] == 0
    finally:
        collector.kill()


@pytest.mark.acceptance
def test_what_waits_for_migrations_says_why_and_again_when_that_changes(tmp_path: Path, postgres: Postgres) -> None:
    url = postgres.make_database("waits_for")
    fleet = Fleet(tmp_path, DATABASE_URL=url.replace("/waits_for", "/comes_later"))
    waiting = Service("waiting", fleet, "waitmigrated")
    try:
        waiting.start()
        waiting.wait_for('database "comes_later" does not exist')
        postgres.make_database("comes_later")
        waiting.wait_for(f"the database lacks migrations of this version: {HOW}")
        assert manage(fleet, "migrate", "-v", "0").returncode == 0
        assert waiting.wait() == 0
        assert waiting.log.count("waiting for it") == 2
        assert "psycopg.pool" not in waiting.log
    finally:
        waiting.kill()
    assert manage(fleet, "waitmigrated").returncode == 0


@pytest.mark.acceptance
def test_a_collector_that_waits_for_migrations_stops_when_told(tmp_path: Path, postgres: Postgres) -> None:
    fleet = Fleet(tmp_path, DATABASE_URL=postgres.make_database("unmigrated_stop"))
    collector = Service("collector", fleet, "collect")
    try:
        collector.start()
        collector.wait_for(HOW)
        status, _ = collector.stop()
        assert status == 0
    finally:
        collector.kill()


@pytest.mark.acceptance
@pytest.mark.parametrize("command", ["collect", "serve"])
def test_an_inventory_that_is_no_database_ends_a_service_with_one_line(command: str, tmp_path: Path) -> None:
    (tmp_path / "inventory.sqlite3").write_bytes(b"this is no database, but a text" * 100)
    done = manage(Fleet(tmp_path, PORT="0"), command)
    assert done.returncode == 1
    assert "the embedded database cannot be migrated" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.acceptance
def test_a_read_only_folder_with_a_migrated_database_does_not_stop_the_check(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    assert manage(fleet, "migrate", "-v", "0").returncode == 0
    (tmp_path / "inventory.sqlite3.migrating").unlink()
    (tmp_path / "inventory.sqlite3.migrating").mkdir()  # cannot be opened as a file, even by root
    done = manage(fleet, "migrate", "--check")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.acceptance
def test_a_token_can_be_made_before_any_service_has_run(tmp_path: Path) -> None:
    done = manage(Fleet(tmp_path), "apitoken", "create", "me")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) > 20
