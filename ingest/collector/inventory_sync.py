"""The collector's writes to Django's database: the GPU inventory and the collector's own counters."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import chain, repeat

from django.db import DatabaseError, InterfaceError, OperationalError, close_old_connections

from ingest.collector.limits import Known
from inventory.models import GPU, Host
from inventory.status import add_counts
from inventory.sync.memory import InventoryMemory
from inventory.sync.sightings import UNKNOWN_ORIGIN, Origin, Sightings
from readings.checks import COUNTER_RESET
from readings.model import PointBlock
from stores.open import describe_store, store_key
from telemetry_site.outage import one_line

logger = logging.getLogger(__name__)

# The database is away, locked or not migrated yet: retrying may succeed.
RETRIABLE = (OperationalError, InterfaceError)


def load_known(metrics: Iterable[str]) -> Known:
    """What the inventory knows, beside these metric names. Raises one of RETRIABLE."""
    close_old_connections()
    gpus = set(GPU.objects.values_list("uuid", "mig_id").iterator())
    return Known(gpus, set(Host.objects.values_list("name", flat=True)), set(metrics))


class InventoryWriter:
    """Gathers in memory and saves on request. All methods are for one thread."""

    def __init__(self, collector_id: str) -> None:
        self._collector_id = collector_id
        self._started = datetime.now(UTC)
        self._memory = InventoryMemory(collector_id)
        self._sightings = Sightings()
        self._messages = 0
        self._stored = 0
        self._refused: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._sightings) or self.has_counts

    @property
    def has_counts(self) -> bool:
        """Whether there are counters to save."""
        return bool(self._messages or self._stored or self._refused)

    def see(self, blocks: Iterable[PointBlock], origins: Iterable[Origin] = ()) -> None:
        """Note the GPUs of blocks that the store has written; ``origins`` names where each came from."""
        for block, origin in zip(blocks, chain(origins, repeat(UNKNOWN_ORIGIN)), strict=False):
            self._sightings.add(block, origin)

    def count(self, *, messages: int, stored: int, refused: Counter[str]) -> None:
        """Add to the counters."""
        self._messages += messages
        self._stored += stored
        self._refused.update(refused)

    def save_inventory(self) -> int:
        """Update the inventory; returns how many GPU counters were reset. Raises one of RETRIABLE and then keeps everything.

        If the database refuses the data for good, logs and drops it: later readings update the inventory again.
        """
        if not self._sightings:
            return 0
        close_old_connections()
        resets = 0
        try:
            resets = self._memory.save(self._sightings)
        except RETRIABLE:
            raise
        except DatabaseError as error:
            logger.error("the database refuses the inventory of %d GPUs: %s", len(self._sightings), one_line(error))
        self._sightings = Sightings()
        if resets:
            self._refused[COUNTER_RESET] += resets
        return resets

    def save_last_seen(self) -> None:
        """Write when hosts, GPUs and placements were last seen into their rows. Raises one of RETRIABLE."""
        close_old_connections()
        try:
            self._memory.refresh()
        except RETRIABLE:
            raise
        except DatabaseError as error:
            logger.error("the database refuses when GPUs were last seen: %s", one_line(error))

    def save_counts(self, committed_offset: int) -> None:
        """Add the counters to the collector's status row. Raises one of RETRIABLE and then keeps them."""
        if not self.has_counts:
            return
        close_old_connections()
        try:
            add_counts(
                self._collector_id,
                started=self._started,
                messages=self._messages,
                readings_stored=self._stored,
                refused=self._refused,
                committed_offset=committed_offset,
                store=describe_store(),
                store_key=store_key(),
            )
        except RETRIABLE:
            raise
        except DatabaseError as error:
            logger.error("the collector's status cannot be saved: %s", one_line(error))
        self._messages = self._stored = 0
        self._refused = Counter()
