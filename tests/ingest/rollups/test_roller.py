"""The roller, turn by turn, on stores in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from ingest.rollups import roller as roller_module
from ingest.rollups.feed import RollupFeed
from ingest.rollups.roller import Roller, RollupConfig, RollupLeaseLost
from inventory.leases import Lease
from inventory.models import RollupState
from inventory.rollup_state import complete, forget, standing
from inventory.rollup_touches import HOURS, MINUTES, touch, touches
from readings.times import SECOND
from stores.base import StoreError, StoreUnavailable
from stores.memory import MemoryStore
from stores.rollups.windows import Tier, WindowTable
from tests.ingest.rollups.keeping import KeptWindows, assert_right
from tests.stores.rollups.reckoning import ENERGY, UTIL, Given, blocks_of, gpu

pytestmark = pytest.mark.django_db

MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
NOON = 490_000 * HOUR
HERE = "a store"


class Site:
    """A store with its roll-ups, and a clock of its own."""

    def __init__(self) -> None:
        self.raw, self.kept = MemoryStore(), KeptWindows()
        self.now_ns, self.seconds = NOON, 0.0
        self.given: list[Given] = []
        self.config = RollupConfig()
        self.rollers: list[Roller] = []

    def process(self, name: str) -> tuple[RollupFeed, Roller]:
        feed = RollupFeed(lambda: HERE, name)
        roller = Roller(
            self.raw,
            self.kept,
            feed,
            self.config,
            store=HERE,
            newest_ns=lambda: self.raw.stats().newest_ns,
            now_ns=lambda: self.now_ns,
            clock=lambda: self.seconds,
        )
        self.rollers.append(roller)
        return feed, roller

    def write(self, feed: RollupFeed, *readings: Given) -> None:
        """As a collector does."""
        blocks = blocks_of(readings)
        self.raw.write(blocks)
        feed.see(blocks)
        feed.save()
        self.given += readings

    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        self.now_ns += int(seconds * SECOND)

    def check(self) -> int:
        return assert_right(self.kept, self.given, HERE)


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    for roller in made.rollers:
        roller.drop()  # ends the thread that renews its lease


def util(second: float, value: float = 50.0, uuid: str = "U", name: str = UTIL) -> Given:
    return Given(gpu(uuid), name, NOON + int(second * SECOND), value)


def waiting(tier: str = MINUTES) -> list[int]:
    """The touched minutes (or hours) since noon."""
    step = MINUTE if tier == MINUTES else HOUR
    return sorted({(each.start_ns - NOON) // step for each in touches(HERE) if each.tier == tier})


def test_a_minute_is_rolled_up_when_it_is_over_and_its_hour_when_that_is(site: Site) -> None:
    feed, roller = site.process("a")
    assert roller.acquire()
    site.write(feed, util(0), util(50, 80.0), util(61))
    site.wait(79)
    assert not roller.turn()
    assert site.kept.windows == {}
    assert waiting() == [0, 1]
    site.wait(1)
    roller.turn()
    assert list(site.kept.windows) == [("1m", NOON)]
    assert (waiting(), waiting(HOURS)) == ([1], [0])
    assert complete(HERE, MINUTES) == (0, NOON + MINUTE)
    site.wait(3600)
    for _ in range(2):
        roller.turn()
        site.wait(10)
    assert touches(HERE) == []
    assert site.check() == 3
    assert complete(HERE, HOURS) == (0, NOON + HOUR)
    assert roller.totals.windows == 3


def test_what_was_stored_before_is_rolled_up_with_what_touches_its_window(site: Site) -> None:
    site.raw.write(blocks_of([util(5), util(3500)]))
    site.given += [util(5), util(3500)]
    feed, roller = site.process("a")
    assert roller.acquire()
    site.write(feed, util(10), util(7200))
    site.wait(3 * 3600)
    for _ in range(3):
        roller.turn(everything=True)
    assert touches(HERE) == []
    # The minute of the reading at 3500 s was never touched.
    site.given = [util(5), util(10), util(7200)]
    assert ("1m", NOON + 58 * MINUTE) not in site.kept.windows
    told = complete(HERE, HOURS)
    assert told is not None
    assert told.start_ns == NOON + HOUR


def test_late_readings_touch_their_window_again(site: Site) -> None:
    feed, roller = site.process("a")
    assert roller.acquire()
    site.write(feed, util(0), util(30), util(59), util(70))
    site.wait(100)
    roller.turn()
    site.write(feed, util(40, 99.0))
    roller.turn()
    assert waiting() == [0, 1]  # until no more has come for a while
    site.wait(10)
    roller.turn()
    site.wait(10)
    roller.turn()
    assert waiting() == [1]
    assert site.check() == 1


def test_a_late_reading_changes_what_a_counter_grew_in_its_next_window(site: Site) -> None:
    feed, roller = site.process("a")
    assert roller.acquire()
    site.write(feed, *(util(second, second, name=ENERGY) for second in (0, 30, 200, 3700)))
    site.wait(3 * 3600)
    while touches(HERE):
        roller.turn(everything=True)
    later: tuple[Tier, int] = ("1m", NOON + 61 * MINUTE)
    before, made = dict(site.kept.windows[later]), roller.totals.windows
    site.write(feed, util(205, 7.0, name=ENERGY), util(59, 40.0, name=ENERGY))
    while touches(HERE):
        roller.turn(everything=True)
    assert site.kept.windows[later] != before
    assert site.check() == 3 + 2
    assert roller.totals.windows - made == 3 + 2  # and none of them twice


def test_a_window_that_is_touched_while_it_is_made_is_made_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    feed, roller = site.process("a")
    assert roller.acquire()
    site.write(feed, util(0))
    site.wait(100)
    write = site.kept.write

    def write_late(tables: Sequence[WindowTable]) -> None:
        site.write(feed, util(30, 70.0))  # after raw was read
        write(tables)

    with monkeypatch.context() as patch:
        patch.setattr(site.kept, "write", write_late)
        roller.turn()
    assert waiting() == [0]
    assert site.check() == 0
    site.wait(20)
    roller.turn()
    site.wait(20)
    roller.turn()
    assert waiting() == []
    assert site.check() == 1


def test_one_process_rolls_up_and_another_takes_over(site: Site) -> None:
    (feed, first), (other_feed, second) = site.process("a"), site.process("b")
    assert first.acquire()
    assert not second.acquire()
    site.write(other_feed, util(0))
    site.wait(100)
    first.turn()
    assert site.check() == 1
    first.release()
    assert second.acquire()
    site.write(feed, util(61))
    site.wait(100)
    second.turn()
    assert site.check() == 2
    with pytest.raises(RollupLeaseLost):
        first.turn()


def test_who_lost_the_lease_while_it_wrote_leaves_nothing_wrong(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one has made the same window out of more readings, and this write comes after it."""
    (feed, first), (_, second) = site.process("a"), site.process("b")
    assert first.acquire()
    site.write(feed, util(0))
    site.wait(100)
    write = site.kept.write

    def write_too_late(tables: Sequence[WindowTable]) -> None:
        monkeypatch.setattr(site.kept, "write", write)
        RollupState.objects.update(lease_until="2020-01-01T00:00:00Z")
        assert second.acquire()
        site.write(feed, util(30, 70.0))
        while touches(HERE):
            second.turn(everything=True)
        assert site.check() == 2
        write(tables)

    monkeypatch.setattr(site.kept, "write", write_too_late)
    with pytest.raises(RollupLeaseLost):
        first.turn()
    assert not first.holds_lease
    assert waiting() == [0]
    while touches(HERE):
        second.turn(everything=True)
    assert site.check() == 2


def test_a_state_that_was_forgotten_begins_anew(site: Site) -> None:
    feed, roller = site.process("a")
    assert roller.acquire()
    site.write(feed, util(0))
    forget(HERE)
    with pytest.raises(RollupLeaseLost):
        roller.turn()
    assert roller.acquire()
    site.write(feed, util(70))
    site.wait(200)
    roller.turn()
    told = complete(HERE, MINUTES)
    assert told is not None
    assert told.start_ns == NOON + MINUTE


def test_windows_that_raw_may_no_longer_have_whole_are_never_overwritten(site: Site) -> None:
    site.config = RollupConfig(raw_retention=10 * 3600.0)
    feed, roller = site.process("a")
    assert roller.acquire()
    site.write(feed, util(0), util(10_000))
    site.wait(20_000)
    while touches(HERE):
        roller.turn(everything=True)
    kept = site.check()
    site.wait(9 * 3600)
    site.raw.apply_retention(NOON + 5 * SECOND)
    site.write(feed, util(20, 1.0))
    while touches(HERE):
        roller.turn(everything=True)
    assert roller.totals.outdated == 2
    site.given = [util(0), util(10_000)]
    assert site.check() == kept == 4


def test_what_a_tier_no_longer_keeps_is_not_written(site: Site) -> None:
    site.config = RollupConfig(minute_retention=86_400.0)
    feed, roller = site.process("a")
    assert roller.acquire()
    site.write(feed, util(-2 * 86_400), util(0))
    site.wait(7200)
    while touches(HERE):
        roller.turn(everything=True)
    assert [start_ns for tier, start_ns in site.kept.windows if tier == "1m"] == [NOON]
    assert len([start_ns for tier, start_ns in site.kept.windows if tier == "1h"]) == 2


def test_a_store_that_is_away_settles_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    feed, roller = site.process("a")
    assert roller.acquire()
    site.write(feed, util(0))
    site.wait(100)

    def fail(_: object) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(site.kept, "write", fail)
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                roller.turn()
    assert waiting() == [0]
    roller.turn()
    assert waiting() == []
    assert site.check() == 1


def test_a_window_that_the_store_refuses_does_not_stop_the_others(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    feed, roller = site.process("a")
    assert roller.acquire()
    site.write(feed, util(0), util(60), util(120))
    site.wait(300)
    write = site.kept.write

    def refuse_one(tables: Sequence[WindowTable]) -> None:
        if any((table.starts_ns == NOON + MINUTE).any() for table in tables):
            raise StoreError("never that minute")
        write(tables)

    with monkeypatch.context() as patch:
        patch.setattr(site.kept, "write", refuse_one)
        for _ in range(3):
            roller.turn()
            site.wait(20)
    assert waiting() == [1]
    assert caplog.text.count("never that minute") == 1
    assert complete(HERE, MINUTES) == (0, NOON + MINUTE)
    site.wait(roller_module.REFUSED_SECONDS)
    roller.turn()
    assert waiting() == []
    told = complete(HERE, MINUTES)
    assert told is not None
    assert told.end_ns > NOON + 3 * MINUTE


def test_a_fleet_that_says_nothing_is_complete(site: Site) -> None:
    _, roller = site.process("a")
    assert roller.acquire()
    site.wait(24 * 3600)
    roller.turn()
    assert complete(HERE, MINUTES) == (0, NOON + 24 * HOUR - 2 * MINUTE)
    assert complete(HERE, HOURS) == (0, NOON + 23 * HOUR)
    assert roller.totals.lag_seconds == 120
    told = standing(HERE)
    assert told is not None
    assert told.is_rolling


def test_late_windows_take_half_of_the_time_and_recent_ones_come_first(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, roller = site.process("a")
    assert roller.acquire()
    site.write(feed, *(util(-HOUR // SECOND * 10 + 60 * number) for number in range(10)))
    roller.turn()
    site.wait(100)
    site.write(feed, util(0))
    make, made = roller.maker.make, []

    def make_slowly(tier: object, start_ns: int, *args: object, **more: object) -> object:
        made.append(start_ns)
        site.wait(2)
        return make(tier, start_ns, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(roller.maker, "make", make_slowly)
    assert roller.turn()
    assert made[0] == NOON
    assert len(made) == 4  # of late ones, until five seconds were over
    assert not roller.turn()
    assert len(made) == 4
    site.wait(6)
    assert roller.turn()
    assert len(made) == 7


def test_old_windows_are_dropped_by_the_newest_reading(site: Site) -> None:
    feed, roller = site.process("a")
    assert roller.acquire()
    site.write(feed, util(0))
    site.wait(90 * 86_400)  # this machine's clock may be wrong
    roller.turn(everything=True)
    site.wait(roller_module.RETENTION_SECONDS)
    roller.turn()
    assert site.kept.retention_ns == [NOON + MINUTE] * 2


def test_a_lease_is_renewed_while_a_window_takes_long(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roller_module, "RENEW_SECONDS", 0.01)
    renewed: list[str] = []
    often = threading.Event()
    _, roller = site.process("a")

    def renew(_: Lease, holder: str) -> bool:
        renewed.append(holder)
        if len(renewed) == 3:
            often.set()
        return True

    monkeypatch.setattr(Lease, "renew", renew)
    assert roller.acquire()
    assert often.wait(10)
    roller.drop()
    assert set(renewed) == {"a"}


def test_touches_of_nobody_are_rolled_up_too(site: Site) -> None:
    """As ``manage.py rollup --rebuild`` makes them."""
    feed, roller = site.process("a")
    assert roller.acquire()
    site.write(feed, util(0), util(90))
    site.wait(7200)
    while touches(HERE):
        roller.turn(everything=True)
    site.kept.windows.clear()
    touch(HERE, MINUTES, range(NOON, NOON + HOUR, MINUTE), roller_module.PREDECESSOR)
    while touches(HERE):
        roller.turn(everything=True)
    assert site.check() == 3
