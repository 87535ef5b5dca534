"""``manage.py watch``: its flags, and a back-test as a user runs it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management.base import CommandError

from health.management.commands.watch import Command
from health.models import Event, WatchState
from readings.times import SECOND
from stores.open import reset_store
from stores.sqlite import SqliteStore
from tests.health.watch.feeding import faulty_blocks
from tests.ports import free_port

pytestmark = pytest.mark.django_db(transaction=True)  # commands close the connection


@pytest.fixture
def store(tmp_path: Path, settings: object) -> Iterator[SqliteStore]:
    settings.STORAGE_TYPE, settings.SQLITE_PATH = "sqlite", tmp_path / "readings.sqlite3"  # type: ignore[attr-defined]
    store = SqliteStore(tmp_path / "readings.sqlite3")
    reset_store()
    yield store
    store.close()
    reset_store()


def run(*arguments: str) -> None:
    """What manage.py does, but for its last line: errors are raised."""
    Command().run_from_argv(["manage.py", "watch", *arguments, "--traceback"])


def test_a_backtest_prints_what_would_have_opened_and_writes_nothing(
    store: SqliteStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.write(list(faulty_blocks(7, (time.time_ns() // SECOND - 3600) * SECOND, 100)))
    run("--backtest", "--start", "-24h", "--from", "store")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("rule ")
    assert any(line.startswith("xid_fatal ") and " gpu GPU-" in line for line in lines)
    assert "events would have opened in" in lines[-1]
    run("--backtest", "--start", "-24h", "--end", "-2h")
    assert capsys.readouterr().out.splitlines()[-1] == "no readings in that time"
    assert not Event.objects.exists()
    assert not WatchState.objects.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--backtest",), "--backtest needs --start: a time, or -24h"),
        (("--backtest", "--start", "-24x"), "--start: '-24x' is not a time before now"),
        (("--backtest", "--start", "yesterday"), "--start: 'yesterday' is not a time: use RFC 3339"),
        (("--backtest", "--start", "-1h", "--end", "2090-13-01"), "--end: '2090-13-01' is not a time"),
        (("--backtest", "--start", "-1h", "--end", "-2h"), r"--start: '-1h' is not before --end \(-2h\)"),
        (("--backtest", "--start", "-1h", "--once"), "--once and --backtest: give one of them"),
        (("--start", "-1h"), "--start belongs to --backtest"),
        (("--end", "-1h"), "--end belongs to --backtest"),
        (("--from", "log"), "--from belongs to --backtest"),
    ],
)
def test_flags_that_make_no_sense_are_refused(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        run(*arguments)


def test_a_past_that_cannot_be_read_is_named(settings: object) -> None:
    settings.STORAGE_TYPE, settings.MQ_PORT = "memory", free_port()  # type: ignore[attr-defined]
    with pytest.raises(CommandError, match="use --from log"):
        run("--backtest", "--start", "-1h")
    with pytest.raises(CommandError, match="no broker at"):
        run("--backtest", "--start", "-1h", "--from", "log")
