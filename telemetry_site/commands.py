"""How much of Django a command loads. A process that only moves messages has no use for the admin, the API or a database:
left out, the broker takes half the memory, and starts in half the time."""

from __future__ import annotations

import logging.config
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from django.core.management.base import BaseCommand

ALL_APPS = (
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "corsheaders",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "telemetry_site",
    "broker",
    "ingest",
    "inventory",
    "api",
)


class Needs(NamedTuple):
    """The room that a command lives in, and the apps whose models it uses."""

    room: str
    apps: tuple[str, ...] = ()


# Commands that are not named here get everything.
COMMANDS: dict[str, Needs] = {
    "runbroker": Needs("broker"),
    "brokerlog": Needs("broker"),
    "stream": Needs("ingest"),
    "collect": Needs("ingest", ("ingest", "inventory")),
    "serve": Needs("api"),  # becomes gunicorn, which loads the rest
}


def apps_for(argv: Sequence[str]) -> tuple[str, ...]:
    """INSTALLED_APPS of the process with this command line: all, unless it is a manage.py that needs less."""
    is_command = len(argv) > 1 and Path(argv[0]).name == "manage.py"
    needs = COMMANDS.get(argv[1]) if is_command else None
    return ALL_APPS if needs is None else needs.apps


def run(argv: Sequence[str]) -> None:
    """Run the command of this command line as Django would, without Django's registry of apps where there are none."""
    from django.core.management import CommandParser, execute_from_command_line, handle_default_options

    if apps_for(argv):
        execute_from_command_line(list(argv))
        return
    # Django's own two flags name the settings and where modules are: they come before everything.
    parser = CommandParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--settings")
    parser.add_argument("--pythonpath")
    handle_default_options(parser.parse_known_args(list(argv[2:]))[0])

    from django.conf import settings

    logging.config.dictConfig(settings.LOGGING)
    room = COMMANDS[argv[1]].room
    command: BaseCommand = import_module(f"{room}.management.commands.{argv[1]}").Command()
    command.run_from_argv(list(argv))
