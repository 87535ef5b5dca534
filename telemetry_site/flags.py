"""Flags of the service commands. A flag is an environment variable given on the command line, and wins over it.

Settings are read once, when Django loads them; so manage.py moves the flags into the environment before that, and
every part of the process (and every process it starts) sees the same values.
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

from telemetry_site.options import BY_NAME, VERBOSITY, options_for


def add_flags(parser: argparse.ArgumentParser, command: str) -> None:
    """Give a parser one flag for each setting that the command takes. A yes-or-no flag may stand without a value."""
    parser.allow_abbrev = False  # an abbreviation would be understood here and not in the first pass below
    for option in options_for(command):
        if option is VERBOSITY:
            continue  # Django gives this flag to every command
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
    """Set the environment variables that the flags in ``argv`` stand for. Leaves what it does not know to Django."""
    if len(argv) < 2 or not options_for(argv[1]):
        return
    parser = _QuietParser(add_help=False)
    parser.add_argument("-v", VERBOSITY.flag, dest=VERBOSITY.name)
    add_flags(parser, argv[1])
    try:
        known, _ = parser.parse_known_args(list(argv[2:]))
    except _Unusable:
        return  # the command's own parser finds the same fault and words it with its usage line
    for name, value in vars(known).items():
        if value is not None:
            environ[name] = _as_text(value)


class ServiceCommand(BaseCommand):
    """A command whose flags are settings. Its ``handle`` reads django.conf.settings and ignores the flags."""

    command_name: str
    # Django's checks look at the URLs, and load the whole API for it. `make check` and CI run them.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the flags of this command's settings."""
        add_flags(parser, self.command_name)

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Refuse a flag that did not come by the command line, since it would have no effect."""
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
