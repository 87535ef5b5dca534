"""What every store of roll-ups must do."""

from __future__ import annotations

import math
import random
import threading

import pytest

from stores.base import StoreError
from stores.rollups.windows import (
    COUNT,
    HIGH,
    LAST,
    LEVELS,
    LOW,
    MEANS,
    P5,
    P50,
    P95,
    STEP_NS,
    TOTAL,
    Level,
    RollupStore,
    Tier,
    WindowKey,
)
from tests.stores.rollups.making import BEGIN, HOUR, TEMP, UTIL, Found, gpu, host, table, windows

MINUTE = STEP_NS["1m"]
KEYS: dict[Level, list[WindowKey]] = {
    "gpu": [gpu(1), gpu(2, mig_id="3"), gpu(9, hostname=""), gpu(17, model="")],
    "host": [host("a"), host("b", ""), host("", "A100"), WindowKey()],
    "model": [WindowKey(model="H100"), WindowKey()],
    "fleet": [WindowKey()],
}
ODD = [
    "", " ", "a b", "a,b=c", 'quo"te', "back\\slash", "back\\", "new\nline", "tab\t", "%41", "%", "ünïcode 🚀", "now()", "'", "time",
]  # fmt: skip


@pytest.mark.parametrize(("tier", "level"), [(tier, level) for tier, levels in LEVELS.items() for level in levels])
def test_what_is_written_is_read_at_each_level(rollups: RollupStore, tier: Tier, level: Level) -> None:
    step = STEP_NS[tier]
    rows = [
        (key, BEGIN + number * step, {UTIL: {TOTAL: 10.5 * place + number, COUNT: 6.0}, TEMP: {LAST: -3.25}})
        for place, key in enumerate(KEYS[level])
        for number in range(3)
    ]
    rollups.write([table(tier, level, rows)])
    expected = {(key, start): stats[UTIL] for key, start, stats in rows}
    assert windows(rollups, tier, level, UTIL, [TOTAL, COUNT]) == expected
    assert windows(rollups, tier, level, TEMP, [LAST]) == {key: {LAST: -3.25} for key in expected}


def test_nothing_is_found_where_nothing_is(rollups: RollupStore) -> None:
    assert windows(rollups, "1h", "gpu", UTIL, [TOTAL]) == {}
    rollups.write([])
    rollups.write([table("1h", "gpu", [])])
    rollups.write([table("1h", "gpu", [(gpu(1), BEGIN, {UTIL: {TOTAL: math.nan}})])])
    assert windows(rollups, "1h", "gpu", UTIL, [TOTAL]) == {}
    rollups.write([table("1h", "gpu", [(gpu(1), BEGIN, {UTIL: {TOTAL: 1.0}})])])
    assert windows(rollups, "1h", "gpu", TEMP, [TOTAL]) == {}
    assert windows(rollups, "1h", "gpu", UTIL, [HIGH, LOW]) == {}
    assert windows(rollups, "1h", "host", UTIL, [TOTAL]) == {}
    assert windows(rollups, "1m", "host", UTIL, [TOTAL]) == {}


def test_a_range_holds_the_windows_that_begin_in_it(rollups: RollupStore) -> None:
    rows = [(host("a"), BEGIN + number * MINUTE, {UTIL: {TOTAL: float(number)}}) for number in range(180)]
    rollups.write([table("1m", "host", rows)])

    def found(start_ns: int, end_ns: int) -> list[float]:
        answer = windows(rollups, "1m", "host", UTIL, [TOTAL], start_ns=start_ns, end_ns=end_ns)
        return [stats[TOTAL] for stats in answer.values()]

    assert found(BEGIN + MINUTE, BEGIN + 3 * MINUTE) == [1.0, 2.0]
    assert found(BEGIN + 1, BEGIN + 3 * MINUTE + 1) == [1.0, 2.0, 3.0]
    assert found(BEGIN + 59 * MINUTE, BEGIN + 61 * MINUTE) == [59.0, 60.0]
    assert found(BEGIN + 5 * MINUTE, BEGIN + 5 * MINUTE) == []
    assert found(BEGIN - HOUR, BEGIN + MINUTE) == [0.0]
    assert found(-(1 << 63), (1 << 63) - 1) == [float(number) for number in range(180)]


def test_windows_before_1970_are_like_others(rollups: RollupStore) -> None:
    rows = [(host("a"), number * MINUTE, {UTIL: {TOTAL: float(number)}}) for number in (-61, -60, -1, 0)]
    rollups.write([table("1m", "host", rows)])
    answer = windows(rollups, "1m", "host", UTIL, [TOTAL], start_ns=-60 * MINUTE, end_ns=MINUTE)
    assert [stats[TOTAL] for stats in answer.values()] == [-60.0, -1.0, 0.0]


def test_a_statistic_replaces_the_one_before_and_nan_replaces_nothing(rollups: RollupStore) -> None:
    key = (host("a"), BEGIN)
    for stats in ({TOTAL: 1.0, COUNT: 1.0}, {TOTAL: 2.0, COUNT: math.nan, HIGH: 9.0}, {LOW: 4.0}):
        rollups.write([table("1m", "host", [(*key, {UTIL: stats})])])
    found = windows(rollups, "1m", "host", UTIL, [TOTAL, COUNT, HIGH, LOW, LAST])
    assert found == {key: {TOTAL: 2.0, COUNT: 1.0, HIGH: 9.0, LOW: 4.0}}


def test_of_two_tables_in_one_call_the_later_one_stays(rollups: RollupStore) -> None:
    tables = [table("1h", "gpu", [(gpu(1), BEGIN, {UTIL: {TOTAL: value}})]) for value in (1.0, 2.0, 3.0)]
    rollups.write(tables)
    assert windows(rollups, "1h", "gpu", UTIL, [TOTAL]) == {(gpu(1), BEGIN): {TOTAL: 3.0}}


def test_writes_in_any_order_end_in_the_same_windows(rollups: RollupStore) -> None:
    chance = random.Random(5)
    expected: Found = {}
    for _ in range(60):
        rows = {
            (host(f"h{chance.randrange(3)}"), BEGIN + chance.randrange(300) * MINUTE): {
                UTIL: {chance.choice([TOTAL, HIGH, LOW]): float(chance.randrange(100))}
            }
            for _ in range(chance.randrange(1, 20))
        }
        rollups.write([table("1m", "host", [(*key, stats) for key, stats in rows.items()])])
        for key, stats in rows.items():
            expected.setdefault(key, {}).update(stats[UTIL])
    assert windows(rollups, "1m", "host", UTIL, [TOTAL, HIGH, LOW]) == expected


def test_boards_instances_hosts_and_models_choose_among_windows(rollups: RollupStore) -> None:
    keys = [
        gpu(1), gpu(2), gpu(2, mig_id="1"), gpu(2, mig_id="2"), gpu(9, model="A100"), gpu(1, hostname="other"),
        WindowKey("a:b", "", "h", ""),
    ]  # fmt: skip
    rollups.write([table("1h", "gpu", [(key, BEGIN, {UTIL: {TOTAL: 1.0}}) for key in keys])])

    def found(**asked: object) -> list[WindowKey]:
        answer = windows(rollups, "1h", "gpu", UTIL, [TOTAL], **asked)
        return [key for key in keys if (key, BEGIN) in answer]

    assert found(gpus=["GPU-0001"]) == [keys[0], keys[5]]
    assert found(gpus=["GPU-0002"]) == keys[1:4]
    assert found(gpus=["GPU-0002:2", "GPU-0009"]) == [keys[3], keys[4]]
    assert found(gpus=["a:b"]) == [keys[6]]
    assert found(gpus=["gpu-0001", "GPU-0002:", ":1"]) == []
    assert found(hostnames=["other", "h", "nowhere"]) == [keys[5], keys[6]]
    assert found(models=["A100", ""]) == [keys[4], keys[6]]
    assert found(gpus=["GPU-0001"], hostnames=["other"]) == [keys[5]]
    assert found(gpus=["GPU-0001"], models=["A100"]) == []


def test_names_and_keys_may_be_any_text(rollups: RollupStore) -> None:
    rows = [(host(text, text), BEGIN, {text: {TOTAL: 1.0 + place}}) for place, text in enumerate(ODD)]
    rollups.write([table("1m", "host", rows)])
    for place, text in enumerate(ODD):
        expected = {(host(text, text), BEGIN): {TOTAL: 1.0 + place}}
        assert windows(rollups, "1m", "host", text, [TOTAL]) == expected
        assert windows(rollups, "1m", "host", text, [TOTAL], hostnames=[text], models=[text]) == expected
    assert windows(rollups, "1m", "host", ODD[3], [TOTAL], hostnames=[ODD[4]]) == {}


def test_the_fleet_has_percentiles(rollups: RollupStore) -> None:
    stats = {COUNT: 4.0, TOTAL: 10.0, LOW: 1.0, HIGH: 4.0, LAST: 2.0, MEANS: 10.0, P5: 1.0, P50: 2.0, P95: 4.0}
    rollups.write([table("1m", "fleet", [(WindowKey(), BEGIN, {UTIL: stats})])])
    assert windows(rollups, "1m", "fleet", UTIL, list(stats)) == {(WindowKey(), BEGIN): stats}


@pytest.mark.parametrize("value", [0.0, -0.0, 1 / 3, 5e-324, 1.7976931348623157e308, 2.0**53 + 2, -1e-7, 123456789.123])
def test_a_value_comes_back_to_the_last_bit(rollups: RollupStore, value: float) -> None:
    rollups.write([table("1h", "fleet", [(WindowKey(), BEGIN, {UTIL: {TOTAL: value}})])])
    (found,) = windows(rollups, "1h", "fleet", UTIL, [TOTAL]).values()
    assert found[TOTAL].hex() == value.hex()


def test_many_keys_windows_and_metrics(rollups: RollupStore) -> None:
    """More than fit into one request, one chunk or one part of an answer."""
    names = [f"DCGM_FI_DEV_{number}" for number in range(5)]
    hosts = [host(f"host-{number:04d}") for number in range(300)]
    expected: dict[str, Found] = {name: {} for name in names}
    for first in range(0, 130, 65):
        rows = []
        for number in range(first, first + 65):
            for place, key in enumerate(hosts):
                stats = {name: {TOTAL: place * 1000.0 + number, COUNT: 8.0} for name in names}
                rows.append((key, BEGIN + number * MINUTE, stats))
                for name in names:
                    expected[name][key, BEGIN + number * MINUTE] = stats[name]
        rollups.write([table("1m", "host", rows)])
    assert windows(rollups, "1m", "host", names[3], [TOTAL, COUNT]) == expected[names[3]]


def test_what_is_dropped_is_gone_and_can_be_written_anew(rollups: RollupStore) -> None:
    def rows(value: float) -> list[tuple[WindowKey, int, dict[str, dict[str, float]]]]:
        return [
            (host(name), BEGIN + number * MINUTE, {UTIL: {TOTAL: value, COUNT: value}})
            for name in "ab"
            for number in range(150)
        ]

    def minutes() -> list[int]:
        found = windows(rollups, "1m", "host", UTIL, [TOTAL], hostnames=["a"])
        return [(start - BEGIN) // MINUTE for _, start in found]

    rollups.write([table("1m", "host", rows(1.0)), table("1h", "host", [(host("a"), BEGIN, {UTIL: {TOTAL: 1.0}})])])
    rollups.drop("1m", BEGIN + 10 * MINUTE, BEGIN + 12 * MINUTE)
    assert minutes() == [*range(10), *range(12, 150)]
    rollups.drop("1m", BEGIN + 50 * MINUTE, BEGIN + 140 * MINUTE)
    assert minutes() == [*range(10), *range(12, 50), *range(140, 150)]
    rollups.drop("1m", BEGIN + 145 * MINUTE, BEGIN + 145 * MINUTE)
    assert len(minutes()) == 58
    assert len(windows(rollups, "1h", "host", UTIL, [TOTAL])) == 1
    again = [(key, start, {UTIL: {TOTAL: 2.0}}) for key, start, _ in rows(2.0)]
    rollups.write([table("1m", "host", again)])
    found = windows(rollups, "1m", "host", UTIL, [TOTAL, COUNT], hostnames=["b"])
    assert found[host("b"), BEGIN + 20 * MINUTE] == {TOTAL: 2.0, COUNT: 1.0}
    assert found[host("b"), BEGIN + 60 * MINUTE] == {TOTAL: 2.0}
    rollups.drop("1m", -(1 << 63), (1 << 63) - 1)
    assert minutes() == []
    assert len(windows(rollups, "1h", "host", UTIL, [TOTAL])) == 1


def test_it_says_how_large_each_tier_is(rollups: RollupStore) -> None:
    rows = [(host(f"h{number}"), BEGIN, {UTIL: {TOTAL: 1 / (number + 1)}}) for number in range(500)]
    rollups.write([table("1m", "host", rows)])
    sizes = rollups.bytes()
    assert sizes.keys() == STEP_NS.keys()
    assert sizes["1m"] > 0


def test_threads_write_and_read_at_once(rollups: RollupStore) -> None:
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(15):
                rows = [(host(name), BEGIN + number * MINUTE, {UTIL: {TOTAL: float(number)}})]
                rollups.write([table("1m", "host", rows)])
                found = windows(rollups, "1m", "host", UTIL, [TOTAL], hostnames=[name])
                assert [stats[TOTAL] for stats in found.values()] == [float(each) for each in range(number + 1)]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_ping_and_close(rollups: RollupStore) -> None:
    rollups.ping()
    rollups.apply_retention(BEGIN)
    rollups.close()
    rollups.close()
    with pytest.raises(StoreError, match="closed"):
        rollups.ping()
