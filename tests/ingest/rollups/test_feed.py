"""What a collector notes of what it has written."""

from __future__ import annotations

import pytest
from django.db import OperationalError

from ingest.rollups import feed as feed_module
from ingest.rollups.feed import RollupFeed
from inventory.rollup_touches import touches
from readings.model import Gpu, Point, PointBlock
from readings.times import SECOND
from stores.base import RefusedReading

pytestmark = pytest.mark.django_db

MINUTE = 60 * SECOND
NOON = 29_400_000 * MINUTE


def block(*seconds: int) -> PointBlock:
    points: list[Point] = [(0, NOON + second * SECOND, [1.0]) for second in seconds]
    return PointBlock([Gpu(uuid="G")], ["DCGM_FI_DEV_GPU_UTIL"], points)


def minutes() -> list[int]:
    return [(each.start_ns - NOON) // MINUTE for each in touches("here")]


@pytest.fixture
def feed() -> RollupFeed:
    return RollupFeed(lambda: "here", "a")


def test_the_minutes_of_all_points_are_recorded(feed: RollupFeed) -> None:
    feed.see([block(0, 59), block(61), block(), block(-1)])
    feed.see([block(600, 120, 130, 6000)])
    assert minutes() == []
    feed.save()
    assert minutes() == [-1, 0, 1, 2, 10, 100]
    assert {each.writer for each in touches("here")} == {"a"}


def test_what_no_store_takes_touches_nothing(feed: RollupFeed) -> None:
    odd = PointBlock([Gpu(uuid="G")], ["DCGM_FI_DEV_GPU_UTIL"], [(0, 1 << 70, [1.0])])
    feed.see([odd])
    feed.see([odd, block(0)])
    feed.save()
    assert minutes() == [0]


def test_each_save_touches_again(feed: RollupFeed) -> None:
    versions = set()
    for _ in range(3):
        feed.see([block(0)])
        feed.save()
        feed.save()
        versions |= {each.version for each in touches("here")}
    assert len(versions) == 3


def test_a_database_that_is_away_loses_no_touch(feed: RollupFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        feed.see([block(60)])  # what is written meanwhile counts too
        raise OperationalError("away")

    feed.see([block(0)])
    with monkeypatch.context() as patch:
        patch.setattr(feed_module, "touch", fail)
        with pytest.raises(OperationalError):
            feed.save()
    feed.save()
    assert minutes() == [0, 1]


class Remembering:
    """What a memory is told."""

    def __init__(self, trusted_from_ns: int) -> None:
        self.trusted_from_ns = trusted_from_ns
        self.told: list[object] = []

    def add(self, blocks: list[PointBlock]) -> None:
        self.told += blocks

    def distrust(self, gpu: str, time_ns: int) -> None:
        self.told.append((gpu, time_ns))


def test_what_was_noted_before_a_memory_began_is_not_trusted(feed: RollupFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Remembering] = []

    def begin(trusted_from_ns: int) -> Remembering:
        made.append(Remembering(trusted_from_ns))
        return made[-1]

    monkeypatch.setattr(feed_module, "WindowMemory", begin)
    feed.see([block(300)])
    feed.begin_memory(NOON)
    assert made[0].trusted_from_ns == NOON + 5 * MINUTE
    refused = RefusedReading("G", "DCGM_FI_DEV_GPU_UTIL", NOON + 400 * SECOND, 1.0, "a reason")
    feed.see([block(400)], [refused])
    assert made[0].told == [block(400), ("G", NOON + 400 * SECOND)]
    feed.begin_memory(NOON + 60 * MINUTE)
    assert made[1].trusted_from_ns == NOON + 60 * MINUTE
    feed.end_memory()
    feed.see([block(500)])
    assert made[1].told == []


def test_nothing_is_noted_while_roll_ups_are_off(feed: RollupFeed) -> None:
    feed.see([block(0)])
    feed.turn_off()
    feed.see([block(60)])
    feed.save()
    assert minutes() == []
    feed.turn_on()
    feed.see([block(120)])
    feed.save()
    assert minutes() == [2]
