"""manage.py watch: judge the fleet's health."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError

from broker.errors import BrokerError
from health.rule_table import rules_now
from health.rules.errors import RulesError
from health.rules.model import Rules
from health.watch.backtest import Backtest, Findings
from health.watch.config import watch_config
from health.watch.errors import WatchError
from health.watch.facts import load_facts
from health.watch.watcher import WatchConfig, Watcher
from inventory.migrating import HOW, is_migrated, wait_until_migrated
from readings.times import parse_moment
from stores.base import StoreError
from stores.open import get_store, reset_store
from telemetry_site.broker_address import broker_address
from telemetry_site.flags import ServiceCommand
from telemetry_site.service import CannotListen, collect_garbage_rarely, stop_signals


class Command(ServiceCommand):
    """Reads the log under WATCH_ID until it is stopped. One judges at a time: a second one waits until the first ends."""

    command_name = "watch"
    help = "Judge the fleet's health by the readings in the broker's log: events, notifications and usage."

    def run_from_argv(self, argv: list[str]) -> None:
        """Run as ``manage.py`` does. ``--start -24h`` is a flag and its value, where argparse sees two flags."""
        super().run_from_argv(_with_values_joined(argv))

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the settings' flags, --once, and those of a back-test."""
        super().add_arguments(parser)
        parser.add_argument("--once", action="store_true", help="end when all is judged that the log holds now")
        parser.add_argument(
            "--backtest",
            action="store_true",
            help="print what the rules would have found between --start and --end, and write nothing",
        )
        parser.add_argument("--start", metavar="TIME", help="of a back-test: RFC 3339, or -24h for a day ago")
        parser.add_argument("--end", metavar="TIME", help="of a back-test [default now]")
        parser.add_argument(
            "--from", dest="past", choices=("store", "log"), help="what a back-test reads [default store]"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until a stop signal, or for a back-test to its end."""
        collect_garbage_rarely()
        try:
            rules = rules_now()
        except RulesError as error:
            raise CommandError(f"HEALTH_RULES (--health-rules): {error}") from error
        if options["backtest"]:
            if options["once"]:
                raise CommandError("--once and --backtest: give one of them")
            self._backtest(rules, options["past"] or "store", *_range(options["start"], options["end"]))
            return
        for flag, name in (("--start", "start"), ("--end", "end"), ("--from", "past")):
            if options[name] is not None:
                raise CommandError(f"{flag} belongs to --backtest, which was not given")
        try:
            asyncio.run(_run(watch_config(rules), once=options["once"]))
        except (WatchError, CannotListen) as error:
            raise CommandError(str(error)) from error

    def _backtest(self, rules: Rules, past: str, start_ns: int, end_ns: int) -> None:
        try:
            if not is_migrated():
                raise CommandError(f"the database is not up to date: {HOW}")
            test = Backtest(rules, load_facts())
            findings = _over_store(test, start_ns, end_ns) if past == "store" else _over_log(test, start_ns, end_ns)
        except DatabaseError as error:
            raise CommandError(f"the database: {error}") from error
        except (StoreError, BrokerError) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("interrupted") from None
        for line in findings.lines():
            self.stdout.write(line)


def _with_values_joined(argv: list[str]) -> list[str]:
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] in {"--start", "--end"}:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _range(start: str | None, end: str | None) -> tuple[int, int]:
    """The range of a back-test in nanoseconds. Raises CommandError."""
    if start is None:
        raise CommandError("--backtest needs --start: a time, or -24h for a day ago")
    now_ns = time.time_ns()
    times = []
    for flag, text in (("--start", start), ("--end", end or "now")):
        try:
            times.append(parse_moment(text, now_ns))
        except ValueError as error:
            raise CommandError(f"{flag}: {text!r} {error}") from error
    if times[0] >= times[1]:
        raise CommandError(f"--start: {start!r} is not before --end ({end or 'now'})")
    return times[0], times[1]


def _over_store(test: Backtest, start_ns: int, end_ns: int) -> Findings:
    if settings.STORAGE_TYPE == "memory":
        raise CommandError(
            "STORAGE_TYPE (--storage-type): memory lives in the web process: use --from log, which the broker has"
        )
    try:
        return test.over_store(get_store(), start_ns, end_ns)
    finally:
        reset_store()


def _over_log(test: Backtest, start_ns: int, end_ns: int) -> Findings:
    return asyncio.run(test.over_log(broker_address(), start_ns, end_ns))


async def _run(config: WatchConfig, *, once: bool) -> None:
    stop = asyncio.Event()
    watcher = Watcher(config, stop)
    with stop_signals(stop):
        async with AsyncExitStack() as stack:
            if settings.METRICS_ADDR is not None:
                # Imported only if needed: a web server takes memory.
                from health.watch.metrics import MonitoredWatcher
                from telemetry_site.monitor import monitoring

                await stack.enter_async_context(monitoring(settings.METRICS_ADDR, MonitoredWatcher(watcher)))
            if await wait_until_migrated(stop):
                await watcher.run(once=once)
