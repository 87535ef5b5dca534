"""Fills the store and the inventory that the settings name with a made-up fleet, for bench/api.py. A process of its own."""

from __future__ import annotations

import argparse
import os
import time

import django

from bench.stores import batches, fleet


def fill(gpus: int, readings: int) -> int:
    """The collector's own work on ready-made blocks: readings to the store, GPUs to the inventory. Returns how many readings."""
    from inventory.sync.memory import save_sightings
    from inventory.sync.sightings import Sightings
    from stores.open import get_store, reset_store

    seconds = max(1, readings // (gpus * 10))
    start_ns = time.time_ns() - (seconds + 5) * 1_000_000_000
    written = 0
    sightings = Sightings()
    pending = []
    for block in batches(fleet(gpus), readings, start_ns):
        pending.append(block)
        if sum(each.count() for each in pending) >= 50_000:
            written += get_store().write(pending).written
            pending = []
        sightings.add(block)
    if pending:
        written += get_store().write(pending).written
    save_sightings(sightings)
    reset_store()
    return written


def main() -> None:
    """Migrate, then fill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=256)
    parser.add_argument("--readings", type=int, default=768_000)
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "telemetry_site.settings")
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    print(fill(options.gpus, options.readings))


if __name__ == "__main__":
    main()
