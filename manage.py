#!/usr/bin/env python
"""The one entry point: every service of the pipeline is a command of this program."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command that was asked for; a bad setting is one line and exit status 2."""
    if sys.argv[1:2] == ["health"]:  # asked every few seconds: without Django
        from telemetry_site.health import main as health

        sys.exit(health(sys.argv[2:]))

    from telemetry_site.env import SettingError
    from telemetry_site.flags import move_flags_to_environment

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "telemetry_site.settings")
    try:
        # Settings are read once, from the environment: so a flag has to be there before Django loads them.
        move_flags_to_environment(sys.argv, os.environ)

        from telemetry_site.commands import run

        run(sys.argv)
    except SettingError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
