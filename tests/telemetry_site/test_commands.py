from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry_site.commands import ALL_APPS, COMMANDS, apps_for, run

ROOT = Path(__file__).resolve().parents[2]
# Runs a command of manage.py and says which modules it took.
PROBE = """
import json, sys
from telemetry_site.commands import run
try:
    run(sys.argv)
except SystemExit as end:
    print(json.dumps([end.code, sorted(sys.modules)]), file=sys.stderr)
"""
HEAVY = {
    "rest_framework",
    "drf_spectacular",
    "django.contrib.admin",
    "django.urls",
    "django.db.models",
    "numpy",
    "pyarrow",
    "aiohttp",
    "urllib3",
}


def modules_of(tmp_path: Path, *arguments: str) -> tuple[int, set[str]]:
    code = PROBE.replace("import json, sys", f"import json, sys; sys.argv = ['manage.py', *{list(arguments)!r}]")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"STATE_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "telemetry_site.settings"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    status, names = json.loads(done.stderr.splitlines()[-1])
    assert "usage: manage.py" in done.stdout
    return status, set(names)


@pytest.mark.parametrize("command", ["runbroker", "brokerlog", "stream", "serve"])
def test_what_has_no_database_loads_nothing_large(command: str, tmp_path: Path) -> None:
    status, names = modules_of(tmp_path, command, "--help")
    assert status == 0
    assert names & HEAVY == set()


def test_a_collector_has_models_and_none_of_the_web(tmp_path: Path) -> None:
    status, names = modules_of(tmp_path, "collect", "--help")
    assert status == 0
    assert "inventory.models" in names
    assert names & {"rest_framework", "django.contrib.admin", "numpy", "aiohttp", "urllib3"} == set()


@pytest.mark.parametrize(
    "argv", [["manage.py"], ["manage.py", "migrate"], ["manage.py", "pipeline"], ["pytest", "stream"], ["gunicorn"]]
)
def test_everything_else_has_all_apps(argv: list[str]) -> None:
    assert apps_for(argv) == ALL_APPS


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_commands_are_where_they_are_said_to_be(command: str) -> None:
    room, apps = COMMANDS[command]
    assert (ROOT / room / "management" / "commands" / f"{command}.py").is_file()
    assert apps_for(["/somewhere/manage.py", command, "--flag"]) == apps
    assert set(apps) <= set(ALL_APPS)


def test_another_settings_module_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "other_settings.py").write_text(
        "from telemetry_site.settings import *\nTCP_ADDR = HTTP_ADDR = type('A', (), {'is_loopback': False})()\n"
    )
    done = subprocess.run(
        [sys.executable, "manage.py", "runbroker", "--settings=other_settings", f"--pythonpath={tmp_path}"],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
        | {"STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "can be reached from other machines" in done.stderr


def test_run_gives_other_commands_to_django(capsys: pytest.CaptureFixture[str]) -> None:
    run(["manage.py", "showsettings"])
    assert "STATE_DIR" in capsys.readouterr().out
