"""inventory.sync.seen: sightings in the inventory's terms."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from inventory.sync.seen import NOTHING, Pod, gather
from readings.times import to_datetime, to_ns
from tests.inventory.building import POWER, T0, USED, UTIL, block, gpu, seen


@pytest.mark.parametrize(
    ("time_ns", "expected"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1_752_871_354_123_456_789, datetime(2025, 7, 18, 20, 42, 34, 123456, tzinfo=UTC)),
        (T0 + 999, datetime(2025, 7, 18, 20, 42, 34, tzinfo=UTC)),
    ],
)
def test_times_are_utc_and_cut_to_the_microsecond(time_ns: int, expected: datetime) -> None:
    assert to_datetime(time_ns) == expected
    assert to_ns(expected) == time_ns // 1000 * 1000


def test_rows_come_in_the_order_of_ids_so_that_writers_lock_in_one_order() -> None:
    found = gather(seen(*(block(gpu(uuid), 0, {UTIL: 1.0}) for uuid in ("GPU-c", "GPU-a", "GPU-b"))))
    assert list(found) == ["GPU-a", "GPU-b", "GPU-c"]


def test_an_instance_brings_its_board_in_its_place() -> None:
    found = gather(
        seen(
            block(gpu(mig_id="1", mig_profile="1g", pod="a"), 0, {POWER: 300.0, USED: 1.0}),
            block(gpu(mig_id="2", mig_profile="2g", pod="b"), 1, {POWER: 299.0, USED: 2.0}),
            block(gpu(mig_id="3", mig_profile="2g", pod="c"), 1, {POWER: 301.0}),
        )
    )
    board = found["GPU-a"]
    assert list(found) == ["GPU-a", "GPU-a:1", "GPU-a:2", "GPU-a:3"]
    assert {each.pod for each in board.observations} == {None}
    assert "mig_profile" not in board.described
    assert (board.first, board.last) == (to_datetime(T0), to_datetime(T0 + 1_000_000_000))


def test_a_newer_description_fills_what_an_older_one_left_out_and_not_the_other_way() -> None:
    found = gather(
        seen(
            block(gpu(model_name="H100", device="", labels={}), 0, {UTIL: 1.0}),
            block(gpu(model_name="", device="nvidia7", labels={"note": "new"}), 1, {UTIL: 1.0}),
        )
    )["GPU-a"]
    assert (found.described["model_name"], found.described["device"]) == ("H100", "nvidia7")
    assert found.labels == {"note": "new"}


def test_of_observations_that_end_together_the_one_with_a_pod_is_last() -> None:
    named, bare = block(gpu(pod="train"), 0, {UTIL: 1.0}), block(gpu(), 0, {POWER: 1.0})
    for blocks in ((named, bare), (bare, named)):
        assert [each.pod for each in gather(seen(*blocks))["GPU-a"].observations] == [NOTHING, Pod("", "train", "")]


def test_a_share_alone_describes_its_gpu() -> None:
    found = gather(seen(block(gpu(pod="a", share=True), 5, {UTIL: 1.0})))["GPU-a"]
    assert found.observations == []
    assert found.described["driver_version"] == "535.129.03"
    assert found.first == found.last == to_datetime(T0 + 5_000_000_000)
