"""Serve fake dcgm-exporters, for trying the dcgm source without a GPU."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ingest.simulator.exporter import FakeConfig, fake_exporters
from ingest.simulator.fleet import FAULTS, METRIC_SETS, FleetShape
from ingest.simulator.versions import GENERATIONS
from telemetry_site.service import stop_signals


def _whole(least: int) -> Any:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not least <= int(text) <= 65535:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to 65535")
        return int(text)

    return parse


def _faults(text: str) -> tuple[str, ...]:
    words = FAULTS if text == "all" else tuple(word for word in text.split(",") if word)
    unknown = [word for word in words if word not in FAULTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not a fault: use {', '.join(FAULTS)} or all")
    return words


class Command(BaseCommand):
    """``manage.py fakeexporter``: serve a synthetic fleet's exporters on consecutive ports, until Ctrl-C."""

    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the flags."""
        parser.add_argument("--hosts", type=_whole(1), default=5, help="exporters [%(default)s]")
        parser.add_argument("--gpus-per-host", type=_whole(1), default=8, help="GPUs of each [%(default)s]")
        parser.add_argument("--seed", type=_whole(0), default=1, help="another number, another load [%(default)s]")
        parser.add_argument(
            "--generation", choices=[*GENERATIONS, "all"], default="all", help="how they write [%(default)s: in turn]"
        )
        parser.add_argument(
            "--each", action="store_true", help="every host in each generation, by an exporter of its own, not in turn"
        )
        parser.add_argument(
            "--metrics",
            choices=list(METRIC_SETS),
            default="default",
            help="what dcgm-exporter gives by default, with deploy/dcgm-exporter/health.csv, or the whole catalogue with links, CPUs"
            " and switches [%(default)s]",
        )
        parser.add_argument("--still", action="store_true", help="no time passes: each answer has the same values")
        parser.add_argument("--faults", type=_faults, default=(), help=f"{', '.join(FAULTS)} or all")
        parser.add_argument("--address", default="127.0.0.1", help="where they listen [%(default)s]")
        parser.add_argument(
            "--port", type=_whole(0), default=9400, help="the first one's port; 0: free ones [%(default)s]"
        )
        parser.add_argument("--hanging", type=_whole(0), default=0, help="how many never answer [%(default)s]")
        parser.add_argument("--garbage", type=_whole(0), default=0, help="how many answer nonsense [%(default)s]")
        parser.add_argument("--list", type=Path, help="write their URLs to this file, for --targets")

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve until a stop signal."""
        generation = options["generation"]
        config = FakeConfig(
            shape=FleetShape(
                options["hosts"],
                options["gpus_per_host"],
                options["seed"],
                METRIC_SETS[options["metrics"]],
                options["faults"],
            ),
            generations=GENERATIONS if generation == "all" else (generation,),
            host=options["address"],
            port=options["port"],
            hanging=options["hanging"],
            garbage=options["garbage"],
            each=options["each"],
            still=options["still"],
        )
        try:
            asyncio.run(self._run(config, options["list"]))
        except OSError as error:
            raise CommandError(f"cannot serve {config.count} exporters from port {config.port}: {error}") from error

    async def _run(self, config: FakeConfig, path: Path | None) -> None:
        stop = asyncio.Event()
        with stop_signals(stop):
            async with fake_exporters(config) as exporters:
                for exporter in exporters[:20]:
                    self.stdout.write(f"{exporter.url}  {exporter.host}  {exporter.kind}")
                if len(exporters) > 20:
                    self.stdout.write(f"… and {len(exporters) - 20} more, up to {exporters[-1].url}")
                if path is not None:
                    await asyncio.to_thread(path.write_text, "".join(f"{each.url}\n" for each in exporters))
                self.stdout.flush()
                await stop.wait()
