"""What is particular to roll-ups in InfluxDB."""

from __future__ import annotations

import gzip
import math
import time
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.base import StoreError
from stores.influxdb.client import InfluxConfig
from stores.rollups.influxdb import BOARDS, InfluxRollups, encode, means_of, spare_means
from stores.rollups.windows import COUNT, LAST, MEANS, STEP_NS, TOTAL, WindowKey
from tests.influxd import Influxd
from tests.stores.rollups.conftest import FOREVER
from tests.stores.rollups.making import BEGIN, HOUR, TEMP, UTIL, host, table, windows

_NUMBERS = st.floats(-1e12, 1e12, allow_subnormal=False) | st.integers(-5, 5).map(float)


def fields(influxd: Influxd, bucket: str, level: str) -> set[str]:
    return {str(name) for name, _ in influxd.query(bucket, f"SHOW FIELD KEYS FROM {level}")}


def test_lines_name_the_level_its_key_and_what_is_there() -> None:
    rows = [
        (host("a b", ""), BEGIN, {UTIL: {TOTAL: 1.5, COUNT: 6.0}, TEMP: {LAST: math.nan}}),
        (host("c", "H100"), BEGIN, {UTIL: {TOTAL: 2.0}, TEMP: {LAST: math.inf}}),
        (host("d", "H100"), BEGIN, {UTIL: {TOTAL: math.nan}}),
    ]
    (body,) = encode([table("1m", "host", rows)])
    assert set(gzip.decompress(body).decode().split("\n")) == {
        f"host,hostname=a\\ b {UTIL}.total=1.5,{UTIL}.count=6.0 {BEGIN}",
        f"host,hostname=c,model=H100 {UTIL}.total=2.0 {BEGIN}",
    }


def test_one_request_holds_many_tables_and_many_tables_need_several() -> None:
    def tables(hosts: int) -> list[bytes]:
        rows = [
            (host(f"h{number}"), BEGIN, {f"m{metric}": {TOTAL: 1.0} for metric in range(100)})
            for number in range(hosts)
        ]
        fleet = table("1m", "fleet", [(WindowKey(), BEGIN, {UTIL: {TOTAL: 1.0}})])
        return list(encode([fleet, table("1m", "host", rows), fleet]))

    assert len(tables(5)) == 1
    bodies = tables(1100)
    assert len(bodies) == 3
    lines = [line for body in bodies for line in gzip.decompress(body).decode().split("\n")]
    assert len(lines) == 1102
    assert len(set(lines)) == 1101


@given(
    boards=st.lists(st.tuples(st.integers(1, 9), _NUMBERS), min_size=1, max_size=8),
    equal=st.booleans(),
)
def test_the_sum_of_means_is_found_again(boards: list[tuple[int, float]], equal: bool) -> None:
    counts = [float(boards[0][0] if equal else count) for count, _ in boards]
    totals = [total for _, total in boards]
    means = math.fsum(total / count for total, count in zip(totals, counts, strict=True))
    stats = {COUNT: sum(counts), TOTAL: math.fsum(totals), MEANS: means}
    arrays = {stat: np.array([[value]]) for stat, value in stats.items()}
    spared = spare_means(arrays)
    assert means_of(spared)[0, 0] == pytest.approx(means, rel=1e-13, abs=0)
    assert spared[BOARDS][0, 0] >= 0
    assert math.isnan(spared[MEANS][0, 0]) == (spared[BOARDS][0, 0] > 0)


def test_a_sum_of_means_that_follows_is_not_written(influxd: Influxd, rollup_config: InfluxConfig) -> None:
    rollups = InfluxRollups(rollup_config, retention=FOREVER)
    even = {COUNT: 48.0, TOTAL: 100.0, MEANS: 100.0 / 6}
    rollups.write([table("1m", "host", [(host("a"), BEGIN, {UTIL: even})])])
    assert fields(influxd, f"{rollup_config.bucket}_1m", "host") == {
        f"{UTIL}.{stat}" for stat in (COUNT, TOTAL, BOARDS)
    }
    ((_, found),) = windows(rollups, "1m", "host", UTIL, [MEANS]).items()
    assert found == {MEANS: pytest.approx(100.0 / 6, rel=1e-15)}
    rollups.close()


def test_a_sum_of_means_is_right_after_each_overwriting(rollup_config: InfluxConfig) -> None:
    rollups = InfluxRollups(rollup_config, retention=FOREVER)
    even, uneven = {COUNT: 12.0, TOTAL: 60.0, MEANS: 10.0}, {COUNT: 11.0, TOTAL: 50.0, MEANS: 9.5}
    for stats in (even, uneven, even, uneven):
        rollups.write([table("1h", "host", [(host("a"), BEGIN, {UTIL: stats})])])
        assert windows(rollups, "1h", "host", UTIL, list(stats)) == {(host("a"), BEGIN): stats}
        assert windows(rollups, "1h", "host", UTIL, [MEANS]) == {(host("a"), BEGIN): {MEANS: stats[MEANS]}}
    rollups.write([table("1h", "host", [(host("b"), BEGIN, {UTIL: {TOTAL: 1.0, COUNT: 1.0}})])])
    assert windows(rollups, "1h", "host", UTIL, [MEANS], hostnames=["b"]) == {}
    rollups.close()


def test_windows_older_than_the_retention_are_left_out(rollup_config: InfluxConfig) -> None:
    rollups = InfluxRollups(rollup_config, retention={"1m": 7200.0, "1h": 0.0})
    now = time.time_ns() // STEP_NS["1m"] * STEP_NS["1m"]
    rows = [(host("a"), start, {UTIL: {TOTAL: 1.0}}) for start in (BEGIN, now)]
    rollups.write([table("1m", "host", rows)])
    found = windows(rollups, "1m", "host", UTIL, [TOTAL], end_ns=now + HOUR)
    assert list(found) == [(host("a"), now)]
    rollups.close()


def test_any_other_refusal_is_an_error(influxd: Influxd, rollup_config: InfluxConfig) -> None:
    rollups = InfluxRollups(rollup_config, retention=FOREVER)
    rollups.ping()
    influxd.write(f"{rollup_config.bucket}_1m", f'host,hostname=x {UTIL}.total="text" {BEGIN}')
    with pytest.raises(StoreError, match="field type conflict"):
        rollups.write([table("1m", "host", [(host("a"), BEGIN, {UTIL: {TOTAL: 1.0}})])])
    rollups.close()


def test_a_default_changes_no_bucket_that_is_there(influxd: Influxd, rollup_config: InfluxConfig) -> None:
    def seconds() -> int:
        bucket = influxd.bucket(f"{rollup_config.bucket}_1m")
        assert bucket is not None
        return int(bucket["retentionRules"][0]["everySeconds"])

    InfluxRollups(rollup_config, retention=FOREVER).ping()
    InfluxRollups(rollup_config, retention={"1m": 86400.0, "1h": 0.0}).ping()
    assert seconds() == 0
    InfluxRollups(rollup_config, retention={"1m": 86400.0, "1h": 0.0}, given=["1m"]).ping()
    assert seconds() == 86400


def test_a_bucket_that_was_deleted_is_made_again(influxd: Influxd, rollup_config: InfluxConfig) -> None:
    rollups = InfluxRollups(rollup_config, retention=FOREVER)
    rollups.ping()
    influxd.drop_bucket(f"{rollup_config.bucket}_1m")
    rows = table("1m", "host", [(host("a"), BEGIN, {UTIL: {TOTAL: 1.0}})])
    with pytest.raises(StoreError, match="not found"):
        rollups.write([rows])
    rollups.write([rows])
    assert len(windows(rollups, "1m", "host", UTIL, [TOTAL])) == 1
    rollups.close()


def test_a_long_answer_comes_in_parts(rollup_config: InfluxConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stores.rollups.influxdb._ROWS_AT_ONCE", 40)
    monkeypatch.setattr("stores.rollups.influxdb._FIRST_STEPS", 8)
    rollups = InfluxRollups(rollup_config, retention=FOREVER)
    rows = [
        (host(name), BEGIN + number * HOUR, {UTIL: {TOTAL: float(number)}})
        for name in "abc"
        for number in (*range(50), *range(4000, 4050))
    ]
    rollups.write([table("1h", "host", rows)])
    connection = rollups._buckets["1h"]._connection
    query = Mock(wraps=connection.query)
    monkeypatch.setattr(connection, "query", query)
    found = windows(rollups, "1h", "host", UTIL, [TOTAL])
    assert found == {(key, start): stats[UTIL] for key, start, stats in rows}
    assert 8 <= query.call_count < 60  # empty parts grow
    rollups.close()
