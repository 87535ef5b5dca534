from __future__ import annotations

import logging
import time
from dataclasses import replace

import pytest

from broker.client.client import Message
from ingest.collector.decode import BatchDecoder
from ingest.collector.limits import HOUR_SECONDS, IntakeLimits, Known, LimitsConfig
from readings.batch import encode_block
from readings.model import Gpu, PointBlock

NOW = time.time_ns()
SMALL = LimitsConfig(gpus=5, new_gpus=3, metrics=4, new_metrics=3)


class Clock:
    """Seconds that a test sets."""

    now = 1e6

    def __call__(self) -> float:
        return self.now


def block(gpus: list[str], metrics: list[str], value: float | None = 1.0, **fields: str) -> PointBlock:
    row = [value] * len(metrics)
    return PointBlock(
        [Gpu(uuid=uuid, **fields) for uuid in gpus],  # type: ignore[arg-type]
        metrics,
        [(index, NOW, row) for index in range(len(gpus))],
    )


def refused(limits: IntakeLimits, given: PointBlock) -> tuple[int, dict[str, int]]:
    """How many readings are left, and those refused by reason."""
    left, refusals = limits.check(given)
    return left.count(), {} if refusals is None else dict(refusals.counts)


def test_a_block_of_what_is_known_is_returned_as_it_is() -> None:
    limits = IntakeLimits(SMALL)
    given = block(["a", "b"], ["m", "n"], hostname="h")
    assert limits.check(given) == (given, None)
    assert limits.check(given)[0] is given


def test_new_gpus_have_a_limit_for_an_hour_and_one_in_all(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    limits = IntakeLimits(SMALL, clock)
    assert refused(limits, block(["a", "b", "c"], ["m"])) == (3, {})
    left, refusals = limits.check(block(["a", "d", "e"], ["m", "n"]))
    assert [left.gpus[index].uuid for index, _, _ in left.points] == ["a"]
    assert refusals is not None
    assert refusals.counts == {"too_many_gpus": 4}
    assert refusals[0].detail == "d m: there were 3 new GPUs within an hour: MAX_NEW_GPUS allows no more"
    assert refusals[0].block == PointBlock([Gpu(uuid="d")], ["m"], [(0, NOW, [1.0])])
    clock.now += HOUR_SECONDS
    assert refused(limits, block(["d", "e"], ["m"])) == (2, {})
    left, refusals = limits.check(block(["f"], ["m"]))
    assert refusals is not None
    assert refusals[0].detail == "f m: there are 5 GPUs already: MAX_GPUS allows no more"
    assert [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING] == [
        "refusing what is new for up to an hour: there were 3 new GPUs within an hour: MAX_NEW_GPUS allows no more",
        "refusing what is new for up to an hour: there are 5 GPUs already: MAX_GPUS allows no more",
    ]


def test_instances_are_gpus_and_hosts_have_the_same_limit() -> None:
    limits = IntakeLimits(SMALL)
    assert refused(limits, block(["a"], ["m"])) == (1, {})
    assert [refused(limits, block(["a"], ["m"], mig_id=str(n)))[0] for n in range(4)] == [1, 1, 0, 0]
    limits = IntakeLimits(SMALL)
    moves = [refused(limits, block(["a"], ["m"], hostname=f"h{n}")) for n in range(4)]
    assert moves == [(1, {})] * 3 + [(0, {"too_many_gpus": 1})]
    assert refused(limits, block(["a"], ["m"])) == (1, {})


def test_metric_names_have_limits_too_and_lose_their_columns_alone() -> None:
    limits = IntakeLimits(SMALL)
    left, refusals = limits.check(block(["a"], ["m", "n", "o", "p", "q"]))
    assert left.metric_names == ["m", "n", "o"]
    assert left.count() == 3
    assert refusals is not None
    assert refusals.counts == {"too_many_metrics": 2}
    assert refusals[0].detail == ("a p: there were 3 new metric names within an hour: MAX_NEW_METRICS allows no more")
    assert refused(limits, block(["a"], ["p"])) == (0, {"too_many_metrics": 1})


def test_what_has_no_reading_is_not_new() -> None:
    limits = IntakeLimits(SMALL)
    given = block(["a"], ["m"])
    given.gpus += [Gpu(uuid=f"spare{n}") for n in range(10)]
    assert refused(limits, given) == (1, {})
    assert refused(limits, block(["a"], [f"n{n}" for n in range(20)], None)) == (0, {})
    assert refused(limits, block(["b", "c"], ["m"])) == (2, {})


def test_what_store_and_inventory_hold_is_known_and_what_they_lost_makes_room() -> None:
    clock = Clock()
    limits = IntakeLimits(replace(SMALL, new_gpus=100), clock)
    due = [limits.is_due]
    limits.load(Known({(f"g{n}", "") for n in range(5)}, {"h"}, {"m"}))
    assert refused(limits, block(["g0", "g4"], ["m"], hostname="h")) == (2, {})
    clock.now += 3600
    due.append(limits.is_due)  # nothing was refused
    assert refused(limits, block(["new"], ["m"])) == (0, {"too_many_gpus": 1})
    due.append(limits.is_due)
    limits.load(Known({("g0", "")}, {"h"}, {"m"}))
    assert [*due, limits.is_due] == [True, False, True, False]
    assert refused(limits, block(["new"], ["m"])) == (1, {})


def test_sixty_thousand_names_of_one_gpu_are_refused_and_bounded() -> None:
    limits = IntakeLimits(LimitsConfig())
    left, refusals = limits.check(block(["a"], [f"name{n}" for n in range(60_000)]))
    assert left.count() == LimitsConfig().new_metrics
    assert refusals is not None
    assert refusals.counts == {"too_many_metrics": 50_000}
    assert len(refusals) == refusals.MOST


def test_a_fleet_of_25000_boards_that_are_all_cut_into_instances_meets_none() -> None:
    assert 25_000 * 8 < LimitsConfig().new_gpus <= LimitsConfig().gpus


def test_readings_beyond_a_limit_are_counted_and_get_letters() -> None:
    decoder = BatchDecoder(0, IntakeLimits(SMALL))
    given = block([f"GPU-{n}" for n in range(5)], ["DCGM_FI_DEV_GPU_TEMP"])
    decoder.take(Message(3, 0, "", encode_block(given, batch_id="", source="", collected_at="")))
    pending = decoder.drain()
    assert (pending.readings, pending.refused) == (3, {"too_many_gpus": 2})
    assert [letter["reason"] for letter in pending.letters] == ["too_many_gpus"] * 2
    assert all("MAX_NEW_GPUS" in letter["detail"] and "batch" in letter for letter in pending.letters)
