from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management.base import CommandError

from telemetry_site.env import SettingError
from telemetry_site.flags import ServiceCommand, move_flags_to_environment

MANAGE = Path(__file__).resolve().parents[2] / "manage.py"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--batch-size", "7"], {"BATCH_SIZE": "7"}),
        (["--batch-size=7", "--csv-path", "a b.csv"], {"BATCH_SIZE": "7", "CSV_PATH": "a b.csv"}),
        (["--loop"], {"LOOP": "true"}),
        (["--loop=false"], {"LOOP": "false"}),
        (["--verbosity", "2", "--no-color"], {"VERBOSITY": "2"}),
        (["--targets", "http://a", "b.txt"], {"TARGETS": "http://a,b.txt"}),
        (
            ["--hosts", "3", "--interval", "1s", "--tz=+02:00"],
            {"SIM_HOSTS": "3", "SCRAPE_INTERVAL": "1s", "CSV_TZ": "+02:00"},
        ),
        (["--batch-s", "7"], {}),
        (["--batch-size"], {}),
    ],
)
def test_a_flag_becomes_the_environment_variable_it_stands_for(arguments: list[str], expected: dict[str, str]) -> None:
    environ: dict[str, str] = {}
    move_flags_to_environment(["manage.py", "stream", *arguments], environ)
    assert environ == expected


def test_a_flag_wins_over_the_environment() -> None:
    environ = {"BATCH_SIZE": "5"}
    move_flags_to_environment(["manage.py", "stream", "--batch-size", "7"], environ)
    assert environ == {"BATCH_SIZE": "7"}


@pytest.mark.parametrize("argv", [["manage.py"], ["manage.py", "migrate", "--batch-size", "7"]])
def test_other_commands_are_left_alone(argv: list[str]) -> None:
    environ: dict[str, str] = {}
    move_flags_to_environment(argv, environ)
    assert environ == {}


class _Command(ServiceCommand):
    command_name = "stream"

    def handle(self, *args: Any, **options: Any) -> str:
        return "ran"


def test_a_flag_given_in_code_is_refused_since_it_would_have_no_effect() -> None:
    from django.core.management import call_command

    with pytest.raises(CommandError, match=r"set settings\.BATCH_SIZE"):
        call_command(_Command(), BATCH_SIZE="7")
    assert call_command(_Command()) == "ran"


@pytest.mark.parametrize(
    ("arguments", "environ", "line"),
    [
        (
            ["stream", "--batch-size", "abc"],
            {},
            "error: BATCH_SIZE (--batch-size): 'abc' is not a whole number: use 1 to 20000",
        ),
        (
            ["stream"],
            {"COLLECT_INTERVAL": "5 parsecs"},
            "error: COLLECT_INTERVAL (--collect-interval): '5 parsecs' is not a duration: use a number and a unit, as 500ms, 5s, 10m, 24h or 7d, or several, as 1h30m",
        ),
        (
            ["check"],
            {"DATABASE_URL": "mongodb://u:hush@h/d"},
            "error: DATABASE_URL: the value names an unknown kind of database",
        ),
    ],
)
def test_a_bad_setting_ends_the_command_with_one_line(
    arguments: list[str], environ: dict[str, str], line: str, tmp_path: Path
) -> None:
    run = subprocess.run(
        [sys.executable, str(MANAGE), *arguments],
        env={**os.environ, "STATE_DIR": str(tmp_path), **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 2
    assert run.stderr.startswith(line)
    assert run.stderr.count("\n") == 1
    assert "hush" not in run.stderr


@pytest.mark.parametrize("arguments", [["--broker-token", "hush"], ["--broker-token=hush"], ["--scrape-password=hush"]])
def test_a_secret_is_no_flag(arguments: list[str]) -> None:
    with pytest.raises(SettingError, match=r"a secret is no flag.*set (BROKER_TOKEN|SCRAPE_PASSWORD), or") as caught:
        move_flags_to_environment(["manage.py", "stream", *arguments], {})
    assert "hush" not in str(caught.value)
