"""manage.py rollup: how far the roll-ups are; make what waits, or a range anew."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ingest.config import rollup_settings
from ingest.rollups.feed import RollupFeed
from ingest.rollups.rebuild import RollupRefusal, RollupRun, raw_range
from ingest.rollups.service import make_roller, prepare_state
from inventory.leases import make_holder
from inventory.rollup_state import HOUR_NS, Complete, standing
from readings.times import format_time, parse_time, spell_duration
from stores.base import StoreError
from stores.open import describe_store, get_store, reset_store, store_key


class Command(BaseCommand):
    """``manage.py rollup [--once | --rebuild [--start TIME] [--end TIME]]``."""

    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        """What to do, and the range."""
        action = parser.add_mutually_exclusive_group()
        action.add_argument("--once", action="store_true", help="make the windows that wait now, and end")
        action.add_argument(
            "--rebuild", action="store_true", help="drop the windows of a range and make them anew from raw readings"
        )
        parser.add_argument("--start", default="", metavar="TIME", help="of the range, a whole hour [what raw has]")
        parser.add_argument("--end", default="", metavar="TIME", help="of the range, a whole hour [what raw has]")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        if (options["start"] or options["end"]) and not options["rebuild"]:
            raise CommandError("--start, --end: they are for --rebuild")
        try:
            self._run(options)
        except (StoreError, RollupRefusal) as error:
            raise CommandError(str(error)) from error
        finally:
            reset_store()

    def _run(self, options: dict[str, Any]) -> None:
        if not options["once"] and not options["rebuild"]:
            self._show()
            return
        raw, rolling = get_store(), rollup_settings()
        rollups = rolling.open_rollups()
        if rollups is None:
            raise CommandError("ROLLUPS: there are none beside this store")
        prepare_state(raw)
        roller = make_roller(raw, rollups, RollupFeed(store_key, make_holder()), rolling.config)
        run = RollupRun(roller, rollups, store_key(), self.stdout.write)
        try:
            if options["once"]:
                run.once()
            else:
                has = raw_range(raw, rolling.config, time.time_ns())
                if has is None:
                    raise RollupRefusal(f"there are no raw readings in {describe_store()}")
                run.rebuild(*_chosen(options, has.start_ns, has.end_ns))
        finally:
            roller.release()

    def _show(self) -> None:
        told = standing(store_key())
        if told is None:
            self.stdout.write(f"nothing is rolled up of {describe_store()}")
            return
        for name, reach in (("minutes", told.minutes), ("hours", told.hours)):
            self.stdout.write(f"{name}: {_spelt(reach)}")
        waiting = ", ".join(f"{count} of {tier}" for tier, count in told.waiting.items())
        self.stdout.write(f"windows that wait: {waiting}")
        if told.updated is not None:
            age = spell_duration(max(0.0, time.time() - told.updated.timestamp()))
            self.stdout.write(f"last made: {age} ago; {'a' if told.is_rolling else 'no'} process rolls up now")


def _spelt(reach: Complete) -> str:
    if reach.start_ns >= reach.end_ns:
        return "none"
    start = f"from {format_time(reach.start_ns)} " if reach.start_ns else ""
    return f"complete {start}until {format_time(reach.end_ns)}"


def _chosen(options: dict[str, Any], first_ns: int, last_ns: int) -> tuple[int, int]:
    """The range of whole hours. Raises RollupRefusal, with what raw has."""
    end_of_raw = -(-last_ns // HOUR_NS) * HOUR_NS
    has = f"raw readings make whole windows from {format_time(first_ns)} to {format_time(end_of_raw)}"
    times = []
    for name, default_ns in (("start", first_ns), ("end", end_of_raw)):
        try:
            time_ns = parse_time(options[name]) if options[name] else default_ns
        except ValueError as error:
            raise RollupRefusal(f"--{name}: {error}") from None
        if time_ns % HOUR_NS:
            raise RollupRefusal(f"--{name}: {options[name]} is not the start of an hour")
        times.append(time_ns)
    start_ns, end_ns = times
    if start_ns < first_ns or end_ns > end_of_raw or start_ns >= end_ns:
        raise RollupRefusal(f"--start, --end: {has}; other windows stay as they are")
    return start_ns, end_ns
