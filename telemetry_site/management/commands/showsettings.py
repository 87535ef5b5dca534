"""Show every setting of the pipeline: its value here, whether it is set or a default, and its meaning."""

from __future__ import annotations

import os
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from readings.text import hide_passwords
from telemetry_site.options import COMMAND_GROUPS, OPTIONS, options_for


class Command(BaseCommand):
    """``manage.py showsettings [--markdown]``."""

    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        """Adds the one switch: the reference table instead of the values."""
        parser.add_argument("--markdown", action="store_true", help="print the table of docs/configuration.md")

    def handle(self, *args: Any, **options: Any) -> None:
        """Prints one line for each setting."""
        if options["markdown"]:
            self.stdout.write(markdown_table())
            return
        for option in OPTIONS:
            shown = option.text(os.environ)
            shown = "(hidden)" if option.secret and shown else hide_passwords(shown)
            origin = "set" if option.is_given() else "default"
            self.stdout.write(f"{option.name:<23} {shown or '(unset)':<32} {origin:<8} {option.help}")


def markdown_table() -> str:
    """Returns the settings as a Markdown table: name, default, commands that take the flag, help."""
    lines = ["| name | default | commands | meaning |", "| --- | --- | --- | --- |"]
    for option in OPTIONS:
        takers = [command for command in COMMAND_GROUPS if command != "pipeline" and option in options_for(command)]
        default = f"`{option.default}`" if option.default else "–"
        everywhere = len(takers) == len(COMMAND_GROUPS) - 1
        flag = f" (flag `{option.flag}`)" if option.flag_name else " (no flag)" if option.secret else ""
        lines.append(
            f"| `{option.name}` | {default} | {'all' if everywhere else ', '.join(takers)} | {option.help}{flag} |"
        )
    return "\n".join(lines)
