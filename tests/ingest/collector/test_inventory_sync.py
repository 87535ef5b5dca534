from __future__ import annotations

import logging
from collections import Counter

import pytest
from django.db import DataError, OperationalError

from ingest.collector import inventory_sync as books_module
from ingest.collector.inventory_sync import RETRIABLE, InventoryWriter
from inventory.models import GPU, CollectorStatus
from inventory.sync.memory import InventoryMemory
from readings.model import Gpu, PointBlock

BLOCK = PointBlock([Gpu(uuid="GPU-1", hostname="h")], ["DCGM_FI_DEV_GPU_UTIL"], [(0, 1752871354_000000000, [50.0])])

pytestmark = pytest.mark.django_db(transaction=True)


def failing(error: Exception) -> object:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_what_was_seen_is_saved_once() -> None:
    writer = InventoryWriter("c1")
    assert not writer
    writer.see([BLOCK])
    assert writer
    writer.save_inventory()
    assert not writer
    assert GPU.objects.get().id == "GPU-1"


def test_counts_are_added_to_the_status_row() -> None:
    for _ in range(2):
        writer = InventoryWriter("c1")
        writer.count(messages=2, stored=5, refused=Counter(blank=1))
        writer.count(messages=1, stored=0, refused=Counter())
        assert writer.has_counts
        writer.save_counts(41)
        writer.save_counts(99)
        assert not writer
    status = CollectorStatus.objects.get()
    assert (status.collector_id, status.messages, status.readings_stored) == ("c1", 6, 10)
    assert (status.refused, status.committed_offset) == ({"blank": 2}, 41)


def test_a_database_that_is_away_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = InventoryWriter("c1")
    writer.see([BLOCK])
    writer.count(messages=1, stored=1, refused=Counter())
    with monkeypatch.context() as patch:
        patch.setattr(InventoryMemory, "save", failing(OperationalError("locked")))
        patch.setattr(books_module, "add_counts", failing(OperationalError("locked")))
        for save in (writer.save_inventory, lambda: writer.save_counts(1)):
            with pytest.raises(RETRIABLE):
                save()
    writer.save_inventory()
    writer.save_counts(1)
    assert GPU.objects.count() == CollectorStatus.objects.count() == 1


def test_what_the_database_never_takes_is_said_and_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writer = InventoryWriter("c1")
    writer.see([BLOCK])
    writer.count(messages=1, stored=1, refused=Counter())
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(InventoryMemory, "save", failing(DataError("value too long")))
        patch.setattr(books_module, "add_counts", failing(DataError("out of range")))
        writer.save_inventory()
        writer.save_counts(1)
    assert not writer
    assert "value too long" in caplog.text
    assert "out of range" in caplog.text
