"""manage.py: what it loads for each service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from manage import WITHOUT_APPS

ROOT = Path(__file__).resolve().parents[2]
# Runs manage.py and prints which modules it loaded.
PROBE = """
import json, sys
import manage
try:
    manage.main()
except SystemExit as end:
    print(json.dumps([end.code, sorted(sys.modules)]), file=sys.stderr)
"""
LIBRARIES = {"numpy", "pyarrow", "aiohttp", "urllib3", "tqdm"}
# The inventory, which these have, keeps newest readings in arrays.
WITH_INVENTORY = LIBRARIES - {"numpy"}
WEB = {"rest_framework", "drf_spectacular", "django.contrib.admin", "django.urls", "django.db.models"}


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"STATE_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "telemetry_site.settings"},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("command", "unwanted"),
    [("collect", WITH_INVENTORY), ("serve", WITH_INVENTORY), *((command, LIBRARIES | WEB) for command in WITHOUT_APPS)],
)
def test_a_service_starts_without_what_it_does_not_need(command: str, unwanted: set[str], tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "-c",
        PROBE.replace("import manage", f"sys.argv = ['manage.py', '{command}', '--help']; import manage"),
    )
    status, names = json.loads(done.stderr.splitlines()[-1])
    assert status == 0
    assert "usage: manage.py" in done.stdout
    assert unwanted.isdisjoint(names)


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_numpy_starts_no_threads(tmp_path: Path) -> None:
    count = f"{PROBE}\nimport numpy, os\nprint(len(os.listdir('/proc/self/task')))"
    done = run(
        tmp_path, "-c", count.replace("import manage", "sys.argv = ['manage.py', 'stream', '--help']; import manage")
    )
    assert done.stdout.splitlines()[-1] == "1"


def test_another_settings_module_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "other_settings.py").write_text(
        "from telemetry_site.settings import *\nTCP_ADDR = HTTP_ADDR = type('A', (), {'is_loopback': False})()\n"
    )
    done = run(tmp_path, "manage.py", "runbroker", "--settings=other_settings", f"--pythonpath={tmp_path}")
    assert done.returncode == 1
    assert "can be reached from other machines" in done.stderr
