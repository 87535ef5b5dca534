#!/usr/bin/env python
"""The one entry point: every service of the pipeline is a command of this program."""

from __future__ import annotations

import os
import sys
from importlib import import_module

# Commands that use no models run without Django's apps: half the start-up time, two thirds of the memory.
WITHOUT_APPS = {"runbroker": "broker", "stream": "ingest"}


def main() -> None:
    """Run the command on the command line. A bad setting is one line and exit status 2."""
    if sys.argv[1:2] == ["health"]:  # container platforms run it every few seconds: without Django
        from telemetry_site.health import main as health

        sys.exit(health(sys.argv[2:]))

    # No service multiplies matrices. The threads that numpy would start for it, one a core, spin at the start: a sixth of a streamer's.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from django.core.management import execute_from_command_line

    from telemetry_site.env import SettingError
    from telemetry_site.flags import move_flags_to_environment

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "telemetry_site.settings")
    try:
        # Django reads the settings once, from the environment, so the flags have to be there first.
        move_flags_to_environment(sys.argv, os.environ)
        name = sys.argv[1] if len(sys.argv) > 1 else ""
        if room := WITHOUT_APPS.get(name):
            import_module(f"{room}.management.commands.{name}").Command().run_from_argv(sys.argv)
        else:
            execute_from_command_line(sys.argv)
    except SettingError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
