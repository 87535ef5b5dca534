"""The settings of a test run: no setting of the developer's shell, and a state folder that is ours alone.

TEST_DATABASE=postgresql makes a real PostgreSQL for the run, and every test that uses Django's database runs on it.
pytest-django loads the settings before any conftest, so this is the place to say so.
"""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
from pathlib import Path

from telemetry_site.options import BY_NAME
from tests.postgres import Postgres, find_bin, folder_for_cluster

for _name in BY_NAME:
    os.environ.pop(_name, None)
    os.environ.pop(f"{_name}_FILE", None)
_state = tempfile.TemporaryDirectory(prefix="gpu-telemetry-tests-")
atexit.register(_state.cleanup)
os.environ["STATE_DIR"] = _state.name

# Workers have it from the process that starts them: they share the server, each with a database of its own.
if os.environ.get("TEST_DATABASE") == "postgresql" and "TEST_DATABASE_URL" not in os.environ:
    _programs = find_bin()
    if _programs is None:
        sys.exit("error: TEST_DATABASE=postgresql needs a real PostgreSQL: apt-get install postgresql")
    _folder = folder_for_cluster()
    _server = Postgres(_programs, Path(_folder.name))
    atexit.register(_folder.cleanup)
    atexit.register(_server.stop)
    _server.start()
    os.environ["TEST_DATABASE_URL"] = _server.url("postgres")
if "TEST_DATABASE_URL" in os.environ:
    os.environ["DATABASE_URL"] = os.environ["TEST_DATABASE_URL"]

from telemetry_site.settings import *  # noqa: E402, F403
from telemetry_site.settings import DATABASES  # noqa: E402

if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # In a file, as in use. In memory threads share one lock, and whoever finds it taken fails at once.
    DATABASES["default"]["TEST"] = {"NAME": Path(_state.name) / "tests.sqlite3"}
# Django's test client is a server that says nothing of its listeners, so reading would be closed.
API_AUTH_REQUIRED = False
# A test sees what it has just saved.
FLEET_SECONDS = INVENTORY_SECONDS = STORE_SECONDS = 0.0
# The settings close what a service writes. Tests also write for services that run as another user.
os.umask(0o022)
os.environ.pop("DATABASE_URL", None)
# Services that tests start have the settings that users have.
os.environ["DJANGO_SETTINGS_MODULE"] = "telemetry_site.settings"
