"""inventory.sync.merging: which fields of a row change."""

from __future__ import annotations

from inventory.models import GPU, Host
from inventory.sync.merging import merge_seen
from inventory.sync.seen import gather
from readings.model import Gpu
from readings.times import to_datetime
from tests.inventory.building import T0, UTIL, block, gpu, seen

START = to_datetime(T0)
HOSTS = {f"host-{n}": Host(pk=n, name=f"host-{n}", first_seen=START, last_seen=START) for n in (1, 2)}


def merged(row: GPU, of: Gpu, seconds: float, value: float = 1.0) -> set[str]:
    [each] = gather(seen(block(of, seconds, {UTIL: value}))).values()
    return set(merge_seen(row, each, HOSTS))


def bare() -> GPU:
    return GPU(id="GPU-a", uuid="GPU-a", first_seen=START, last_seen=START)


def test_a_bare_row_takes_all_that_is_said() -> None:
    row = bare()
    assert merged(row, gpu(pod="train"), 0) == {
        "host_id",
        "index",
        "device",
        "model_name",
        "driver_version",
        "labels",
        "pod",
    }
    assert merged(row, gpu(pod="train"), 0) == set()


def test_the_next_reading_changes_only_what_readings_change() -> None:
    row = bare()
    merged(row, gpu(), 0)
    assert merged(row, gpu(), 1) == {"last_seen"}


def test_an_older_reading_changes_no_more_than_when_it_was_first_seen() -> None:
    row = bare()
    merged(row, gpu(pod="train"), 10)
    late = gpu(hostname="host-2", gpu_id=7, pod="other", model_name="other", labels={"other": "1"})
    assert merged(row, late, -5) == {"first_seen"}
    assert (row.host_id, row.index, row.pod, row.first_seen) == (1, 0, "train", to_datetime(T0 - 5_000_000_000))


def test_a_bare_description_takes_nothing_away_but_the_pod() -> None:
    row = bare()
    merged(row, gpu(pod="train"), 0)
    assert merged(row, Gpu(uuid="GPU-a"), 1) == {"last_seen", "pod"}
