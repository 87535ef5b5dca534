"""Write a synthetic DCGM capture, for trying the pipeline without a GPU."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ingest.simulator.capture import CAPTURE_SETS, CaptureShape, write_capture


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 1000000")
    return number


class Command(BaseCommand):
    """``manage.py makecapture FILE``: write a synthetic fleet's readings as a DCGM capture."""

    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the flags."""
        shape = CaptureShape()
        parser.add_argument("path", type=Path, help="the CSV file to write")
        parser.add_argument("--hosts", type=_count, default=shape.hosts, help="hosts [%(default)s]")
        parser.add_argument("--gpus", type=_count, default=shape.gpus_per_host, help="GPUs of a host [%(default)s]")
        parser.add_argument("--samples", type=_count, default=shape.samples, help="samples of a GPU [%(default)s]")
        parser.add_argument(
            "--interval", type=_count, default=shape.interval_s, help="seconds between samples [%(default)s]"
        )
        parser.add_argument(
            "--seed", type=_count, default=shape.seed, help="another number, another load [%(default)s]"
        )
        parser.add_argument(
            "--metrics",
            choices=sorted(CAPTURE_SETS),
            default="default",
            help="the ten of common captures, those of deploy/dcgm-exporter/health.csv, or the whole catalogue [%(default)s]",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Write the capture and print its number of rows."""
        shape = CaptureShape(
            options["hosts"],
            options["gpus"],
            options["samples"],
            options["interval"],
            options["seed"],
            CAPTURE_SETS[options["metrics"]],
        )
        try:
            rows = write_capture(options["path"], shape)
        except OSError as error:
            raise CommandError(f"cannot write {str(options['path'])!r}: {error.strerror}") from error
        self.stdout.write(f"{options['path']}: {rows} synthetic readings of {shape.hosts * shape.gpus_per_host} GPUs")
