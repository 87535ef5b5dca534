from __future__ import annotations

import random
from pathlib import Path

import pytest

from ingest.capture import arrow, compression, last_time
from ingest.capture import source as csv_source
from ingest.capture.arrow import ColumnReader
from ingest.capture.source import CsvSource
from ingest.samples import RefusedRow
from ingest.shard import WHOLE, Shard
from readings.times import parse_time
from tests.ingest.captures import COLUMNS, METRICS, line, read_rest, readings_in, row, rows, write_capture

HEADER = ",".join(COLUMNS) + "\n"
Found = tuple[list[tuple[object, ...]], list[RefusedRow], dict[str, int]]

ODD_LINES = [
    line(row(value="N/A")),
    line(row(value="")),
    line(row(value=" 12 ")),
    line(row(value="+5")),
    line(row(value="nan")),
    line(row(value="1_0")),
    line(row(value="9223372036854775794")),
    line(row(value="0x10")),
    line(row(value="5e1")),
    line(row(time="noon")),
    line(row(time="1752871354000")),
    line(row(labels='UUID="GPU-other"')),
    line(row(labels='a="b')),
    line(row(labels='note="a,b",x="c\\"d"')),
    line(row(labels="x" * 140_000)),
    line(row("")),
    line(row(" DCGM_FI_DEV_DEC_UTIL ")),
    line(row("DCGM_FI_DEV_SM_CLOCK_HERTZ", value="1980000000")),
    line(row("DCGM_FI_DEV_GPU_UTIL_RATIO", value="7")),
    line([*row()[:4], "", *row()[5:11], ""]),
    line(row()[:5]),
    line([*row(), "", ""]),
    line([*row(), "extra"]),
    HEADER,
    "\n",
    "a,\0b\n",
    '"never closed\n',
    line(row(labels='x="two\nlines"')),
    line(row(gpu=3)).replace("host-00", "höst"),
]


def found(path: Path, *, by_column: bool, max_rows: int | None = None, shard: Shard = WHOLE) -> Found:
    """What is read by column, or row by row, which is slow and right."""
    with pytest.MonkeyPatch.context() as patch:
        if not by_column:
            patch.setattr(ColumnReader, "read", lambda *_: None)
        source = CsvSource(str(path), needs_timestamp=True, shard=shard)
        read = read_rest(source, max_rows)
        source.close()
    assert read.position == path.stat().st_size
    readings = [(gpu.id, gpu.hostname, str(gpu.labels), *rest) for gpu, *rest in read.readings]
    return readings, sorted(read.refused), read.counts


@pytest.mark.parametrize("block", [700, 5_000, 2 << 20])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_blocks_give_what_careful_reading_gives_whatever_is_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, ending: str
) -> None:
    monkeypatch.setattr(compression, "BLOCK_BYTES", block)
    monkeypatch.setattr(csv_source, "CAREFUL_ROWS", 3)
    rng = random.Random(block)
    for seed in range(6):
        lines = [line(fields) for fields in rows(8, 2)]
        for odd in ODD_LINES if seed == 0 else rng.sample(ODD_LINES, seed - 1):
            lines.insert(rng.randrange(len(lines)), odd)
        path = tmp_path / f"{seed}.csv"
        text = HEADER + "".join(lines)
        path.write_bytes((text if seed % 2 else text.rstrip("\n")).replace("\n", ending).encode())
        expected = found(path, by_column=False)
        assert found(path, by_column=True) == expected
        for pace in (1, 2, 7):
            assert found(path, by_column=True, max_rows=pace) == expected


def test_a_good_capture_is_never_read_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_capture(tmp_path / "capture.csv", gpus=20, samples=10)
    monkeypatch.setattr(CsvSource, "_read_rows", lambda *_: pytest.fail("read by row"))
    source = CsvSource(str(path), needs_timestamp=True)
    chunk = source.read()
    assert (chunk.position, chunk.refused) == (path.stat().st_size, [])
    source.close()
    assert {(gpu.uuid, *rest) for gpu, *rest in chunk.columns.readings()} == readings_in(path)
    assert len({id(gpu) for gpu in chunk.columns.gpus}) == 20
    assert set(chunk.columns.names) == set(METRICS)


@pytest.mark.parametrize("by_column", [True, False])
def test_shards_have_each_row_once(tmp_path: Path, by_column: bool) -> None:
    path = write_capture(tmp_path / "capture.csv", gpus=20, samples=10)
    with path.open("a") as file:
        file.writelines(ODD_LINES[:8])
    whole = found(path, by_column=by_column)
    parts = [found(path, by_column=by_column, shard=Shard(place, 3)) for place in range(3)]
    assert sorted((each for part in parts for each in part[0]), key=repr) == sorted(whole[0], key=repr)
    assert sorted(each for part in parts for each in part[1]) == whole[1]
    assert all(part[0] for part in parts)


def test_the_real_capture_by_column(real_capture: Path) -> None:
    assert found(real_capture, by_column=True) == found(real_capture, by_column=False)


@pytest.mark.parametrize("bad", [[], ["2025-02-30T00:00:00Z", "2025-07-18 20:42:34"], ["1752871354000"]])
def test_times_that_hardly_repeat_are_read_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: list[str]
) -> None:
    monkeypatch.setattr(arrow, "_MANY_TIMES", 5)
    rng = random.Random(3)
    times = [
        f"20{rng.randrange(100):02}-07-18T20:42:{rng.randrange(60):02}.{rng.randrange(10**9):09}Z" for _ in range(50)
    ]
    times += ["1999-12-31T23:59:59.5Z", "1970-01-01T00:00:00Z", "2099-12-31T23:59:59.999999999Z", *bad]
    path = tmp_path / "capture.csv"
    path.write_text(HEADER + "".join(line(row(time=time)) for time in times))
    assert found(path, by_column=True) == found(path, by_column=False)


@pytest.mark.parametrize("block", [700, 5_000, 2 << 20])
def test_the_newest_time_is_found_whatever_is_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(compression, "BLOCK_BYTES", block)
    monkeypatch.setattr(last_time, "CAREFUL_ROWS", 3)
    path = tmp_path / "capture.csv"
    lines = [line(row(time=f"2025-07-18T20:42:{number:02}Z")) for number in range(40)]
    text = "".join([HEADER, *lines[:9], *ODD_LINES, *lines[9:], line(row(time="2100-01-01T00:00:00Z"))])
    path.write_text(text)
    source = CsvSource(str(path), needs_timestamp=True)
    before = source.position
    assert source.last_time(parse_time("2030-01-01T00:00:00Z"), lambda: False) == parse_time("2025-07-18T20:42:39Z")
    assert source.last_time(0, lambda: False) == parse_time("2100-01-01T00:00:00Z")
    assert source.last_time(0, lambda: True) is None
    assert source.position == before
    source.close()
