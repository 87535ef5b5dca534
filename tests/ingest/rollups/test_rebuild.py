"""Windows made anew, and those that wait made at once."""

from __future__ import annotations

import pytest

from ingest.rollups import rebuild as rebuild_module
from ingest.rollups.rebuild import RollupRefusal, RollupRun, raw_range
from ingest.rollups.roller import Roller, RollupConfig
from inventory.rollup_state import complete, lease_of
from inventory.rollup_touches import HOURS, MINUTES, touches
from readings.times import SECOND
from stores.base import StoreError
from stores.memory import MemoryStore
from stores.rollups.windows import WindowTable
from tests.ingest.rollups.test_roller import HERE, HOUR, MINUTE, NOON, Site, util
from tests.ingest.rollups.test_roller import site as site
from tests.stores.rollups.reckoning import ENERGY, blocks_of

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild_module, "WAIT_SECONDS", 0.001)
    monkeypatch.setattr(rebuild_module, "LEASE_WAIT_SECONDS", 0.01)


def run_of(site: Site, roller: Roller, said: list[str] | None = None) -> RollupRun:
    return RollupRun(roller, site.kept, HERE, ([] if said is None else said).append)


def test_raw_that_was_stored_before_is_rolled_up(site: Site) -> None:
    site.given = [util(second, second, name=ENERGY) for second in (10, 50, 3000, 3700, 7300)]
    site.raw.write(blocks_of(site.given))
    site.wait(3 * 3600)
    _, roller = site.process("a")
    assert roller.acquire()
    roller.turn()
    assert complete(HERE, MINUTES) == (NOON + 122 * MINUTE, NOON + 178 * MINUTE)
    said: list[str] = []
    run_of(site, roller, said).rebuild(NOON, NOON + 3 * HOUR)
    assert site.check() == 4 + 3
    assert touches(HERE) == []
    assert complete(HERE, MINUTES) == (NOON, NOON + 179 * MINUTE)
    assert complete(HERE, HOURS) == (NOON, NOON + 3 * HOUR)
    assert said[-1] == "3 of 3 windows of 1h"


def test_windows_that_should_not_be_are_gone_afterwards(site: Site) -> None:
    feed, roller = site.process("a")
    assert roller.acquire()
    site.write(feed, util(10), util(3700))
    site.wait(3 * 3600)
    run_of(site, roller).once()
    wrong = site.kept.windows["1m", NOON]
    wrong |= {(level, key._replace(hostname="gone"), name, stat): 1.0 for level, key, name, stat in list(wrong)}
    site.kept.windows["1m", NOON + 7 * MINUTE] = dict(wrong)
    site.kept.windows["1h", NOON + 5 * HOUR] = dict(wrong)  # not of the range
    run_of(site, roller).rebuild(NOON, NOON + 2 * HOUR)
    assert site.check() == 2 + 2
    assert ("1m", NOON + 7 * MINUTE) not in site.kept.windows
    assert ("1h", NOON + 5 * HOUR) in site.kept.windows


def test_another_process_may_have_the_lease(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    feed, collector = site.process("a")
    _, roller = site.process("b")
    assert collector.acquire()
    site.write(feed, util(10))
    site.wait(3 * 3600)

    def roll_and_wait(_: float) -> None:
        site.wait(20)
        collector.turn()

    monkeypatch.setattr("ingest.rollups.rebuild.time.sleep", roll_and_wait)
    run_of(site, roller).rebuild(NOON, NOON + HOUR)
    assert not roller.holds_lease
    assert roller.totals.windows == 0
    assert site.check() == 2


def test_what_waits_is_made_at_once(site: Site) -> None:
    feed, roller = site.process("a")
    assert roller.acquire()
    site.write(feed, util(0), util(50), util(70))
    roller.release()
    _, other = site.process("b")
    run_of(site, other).once()
    assert site.check() == 3
    assert touches(HERE) == []


def test_what_a_collector_does_already_is_refused(site: Site) -> None:
    _, collector = site.process("host-1:a")
    assert collector.acquire()
    _, roller = site.process("b")
    with pytest.raises(RollupRefusal, match="the collector on host-1 rolls up already"):
        run_of(site, roller).once()
    assert lease_of(HERE).holder() == "host-1:a"


def test_what_cannot_be_made_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    feed, roller = site.process("a")
    assert roller.acquire()
    site.write(feed, util(0), util(70))
    write = site.kept.write

    def refuse_one(tables: list[WindowTable]) -> None:
        if any((table.starts_ns == NOON).any() for table in tables):
            raise StoreError("never that minute")
        write(tables)

    monkeypatch.setattr(site.kept, "write", refuse_one)
    with pytest.raises(RollupRefusal, match="1 windows of 1m cannot be made"):
        run_of(site, roller).once()


def test_the_range_of_raw_is_what_it_has_whole() -> None:
    raw, for_ever = MemoryStore(), RollupConfig()
    assert raw_range(raw, for_ever, NOON) is None
    raw.write(blocks_of([util(90), util(7290)]))
    assert raw_range(raw, for_ever, NOON + 24 * HOUR) == (NOON, NOON + 122 * MINUTE)
    kept = RollupConfig(raw_retention=24 * 3600.0)
    assert raw_range(raw, kept, NOON + 3 * HOUR) == (NOON, NOON + 122 * MINUTE)
    # An hour of grace for the readings before counters', and then the next whole hour.
    assert raw_range(raw, kept, NOON + 24 * HOUR + SECOND) == (NOON + 2 * HOUR, NOON + 122 * MINUTE)
