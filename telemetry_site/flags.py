"""The flags of the service commands. A flag sets an environment variable from the command line, and wins over it.

Django reads the settings once. manage.py moves the flags into the environment before that, so every part of the process,
and every process it starts, sees the same values.
"""

from __future__ import annotations

import argparse
import logging.config
import os
from collections.abc import MutableMapping, Sequence
from typing import Any, NoReturn

from django.apps import apps
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from telemetry_site.env import SettingError
from telemetry_site.options import BY_NAME, VERBOSITY, options_for


def add_flags(parser: argparse.ArgumentParser, command: str) -> None:
    """Adds a flag to the parser for each setting of the command. A boolean flag needs no value."""
    parser.allow_abbrev = False  # the first pass, below, does not understand abbreviations
    for option in options_for(command):
        if option is VERBOSITY or option.secret:
            continue  # Django gives the first to every command
        is_switch = option.default in {"true", "false"}
        shown = "none" if not option.default else option.default
        parser.add_argument(
            option.flag,
            dest=option.name,
            metavar="VALUE",
            nargs="?" if is_switch else "+" if option.many else None,
            const="true" if is_switch else None,
            help=f"{option.help} [{option.name}, default {shown}]".replace("%", "%%"),
        )


def move_flags_to_environment(argv: Sequence[str], environ: MutableMapping[str, str]) -> None:
    """Sets the environment variable of each flag in ``argv``. Leaves all other arguments to Django.

    Raises SettingError for a secret.
    """
    if len(argv) < 2 or not options_for(argv[1]):
        return
    for option in options_for(argv[1]):
        if option.secret and any(word.split("=", 1)[0] == option.flag for word in argv[2:]):
            raise SettingError(
                f"{option.flag}: a secret is no flag, because other users can see it in ps: set {option.name}, or"
                f" {option.name}_FILE to a file that holds it"
            )
    parser = _QuietParser(add_help=False)
    parser.add_argument("-v", VERBOSITY.flag, dest=VERBOSITY.name)
    add_flags(parser, argv[1])
    try:
        known, _ = parser.parse_known_args(list(argv[2:]))
    except _Unusable:
        return  # the command's own parser reports the same fault, with its usage line
    for name, value in vars(known).items():
        if value is not None:
            environ[name] = _as_text(value)


class ServiceCommand(BaseCommand):
    """A command whose flags are settings. Its ``handle`` reads django.conf.settings, never the flags."""

    command_name: str
    # Django's checks load the URLs, and with them the whole API. `make check` and CI run them.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Adds the flags of this command's settings."""
        add_flags(parser, self.command_name)

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Refuses a flag that did not come from the command line, since it would have no effect."""
        for name, value in options.items():
            if name in BY_NAME and value is not None and os.environ.get(name) != _as_text(value):
                raise CommandError(f"{name}: flags work on the command line only; in code, set settings.{name}")
        if not apps.ready:  # manage.py runs this command without Django's apps, which would configure logging
            logging.config.dictConfig(settings.LOGGING)
        return super().execute(*args, **options)


def _as_text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else ",".join(value)


class _Unusable(Exception):
    pass


class _QuietParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Unusable(message)
