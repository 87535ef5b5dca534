from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from ingest.capture.position import ResumeState, SourcePosition
from ingest.capture.source import CaptureChunk, CsvSource
from ingest.errors import SourceError
from readings.times import SECOND, parse_time
from tests.ingest.captures import (
    COLUMNS,
    METRICS,
    START,
    line,
    read_capture,
    read_rest,
    readings_in,
    row,
    write_capture,
)

HEADER = ",".join(COLUMNS) + "\n"
FAR = 1 << 62


def open_source(path: Path, *, needs_timestamp: bool = True) -> CsvSource:
    return CsvSource(str(path), needs_timestamp=needs_timestamp)


@pytest.mark.parametrize("step", [1, 7, 5000])
def test_every_row_is_read_once_whatever_the_chunks(tmp_path: Path, step: int) -> None:
    path = write_capture(tmp_path / "capture.csv", gpus=5, samples=2)
    read = read_capture(path, step)
    assert len(read.readings) == 30
    assert set(read.flat()) == readings_in(path)
    assert (read.position, read.line) == (path.stat().st_size, 32)
    assert read.refused == []


def test_the_real_capture_is_read_whole(real_capture: Path) -> None:
    read = read_capture(real_capture)
    assert len(read.readings) == 2470
    assert set(read.flat()) == readings_in(real_capture)
    assert len({gpu.uuid for gpu, *_ in read.readings}) == 247
    assert len({gpu.hostname for gpu, *_ in read.readings}) == 31
    assert {gpu.driver_version for gpu, *_ in read.readings} == {"535.129.03"}
    assert not read.counts


def test_bad_rows_are_refused_by_themselves_with_line_reason_and_text(tmp_path: Path) -> None:
    path = tmp_path / "capture.csv"
    short = line(row()[:4])
    lines = [
        line(row(gpu=0)),
        line(row(gpu=1, value="N/A")),
        short,
        line(row(gpu=2, time="noon")),
        "a,\0b\n",
        line(row(gpu=3)),
        '"2025-07-18T20:42:34Z","DCGM_FI_DEV_GPU_UTIL","0","nvid',
    ]
    path.write_text(HEADER + "".join(lines))
    chunk = read_capture(path)
    assert len(chunk.readings) == 2
    assert [(each.line, each.reason) for each in chunk.refused] == [
        (3, "not_available"),
        (4, "short_row"),
        (5, "bad_timestamp"),
        (6, "short_row"),
        (8, "short_row"),
    ]
    assert chunk.refused[1].raw == short.strip()
    assert chunk.counts == {"not_available": 1, "short_row": 3, "bad_timestamp": 1}


def test_rows_whose_labels_disagree_are_kept_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "capture.csv"
    path.write_text(HEADER + line(row(labels='UUID="GPU-other"')) + line(row(gpu=1)))
    chunk = read_capture(path)
    assert len(chunk.readings) == 2
    assert chunk.counts == {"label_conflict": 1}
    assert chunk.refused == []


@pytest.mark.parametrize("needs_timestamp", [True, False])
def test_a_header_in_the_middle_is_passed_over(tmp_path: Path, needs_timestamp: bool) -> None:
    path = tmp_path / "capture.csv"
    path.write_text(HEADER + line(row()) + "\ufeff" + HEADER + line(row(gpu=1)))
    read = read_capture(path, needs_timestamp=needs_timestamp)
    assert (len(read.readings), read.refused) == (2, [])


def test_rewind_goes_back_to_the_first_row(tmp_path: Path) -> None:
    source = open_source(write_capture(tmp_path / "capture.csv"))
    first = read_rest(source).flat()
    source.rewind()
    assert read_rest(source).flat() == first
    source.close()


def state_at(source: CsvSource, chunk: CaptureChunk, timestamps: str = "source") -> ResumeState:
    state = source.state_at(SourcePosition(chunk.position, chunk.line, 0), timestamps)
    assert state is not None
    return state


def test_a_later_run_goes_on_where_the_earlier_one_stopped(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "capture.csv")
    source = open_source(path)
    chunk = source.read(5)
    state = state_at(source, chunk)
    rest = read_rest(source).flat()
    source.close()
    later = open_source(path)
    assert later.resume(state, "source")
    assert later.position == chunk.position
    assert read_rest(later).flat() == rest
    assert len(rest) == 7
    later.close()


def test_a_replaced_capture_or_another_wish_for_times_starts_anew(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "capture.csv")
    source = open_source(path)
    state = state_at(source, source.read(5))
    source.close()

    same = open_source(path)
    assert not same.resume(state, "now")
    same.close()

    path.write_text(path.read_text().replace('"30"', '"31"', 1))
    changed = open_source(path)
    assert not changed.resume(state, "source")
    assert len(read_rest(changed).readings) == 12
    changed.close()


def test_the_newest_time_is_found_and_the_place_kept(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "capture.csv", gpus=2, samples=3)
    with path.open("a") as file:
        file.write(line(row(gpu=1, time="noon")) + '"cut\n')
    source = open_source(path)
    source.read(4)
    position = source.position
    assert source.last_time(FAR, lambda: False) == parse_time(START) + 22 * SECOND
    assert source.position == position
    assert source.last_time(FAR, lambda: True) is None
    source.close()


def test_a_clock_that_was_wrong_does_not_pass_for_the_newest_time(tmp_path: Path) -> None:
    path = tmp_path / "capture.csv"
    path.write_text(HEADER + line(row()) + line(row(time="2099-01-01T00:00:00Z")))
    source = open_source(path)
    assert source.last_time(parse_time("2030-01-01T00:00:00Z"), lambda: False) == parse_time(START)
    assert source.last_time(0, lambda: False) == parse_time("2099-01-01T00:00:00Z")
    source.close()


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "capture.csv")
    source = open_source(path)
    source.read(1)
    os.close(source._file.fileno())
    with pytest.raises(SourceError, match="cannot be read"):
        source.rewind()
    with pytest.raises(OSError, match="Bad file"):
        source.close()


def test_the_metrics_keep_their_order(tmp_path: Path) -> None:
    read = read_capture(write_capture(tmp_path / "capture.csv", gpus=1))
    assert [name for _, name, _, _ in read.readings] == list(METRICS)


@pytest.mark.parametrize("step", [None, 1])
def test_of_two_rows_for_one_reading_the_later_one_comes_later(tmp_path: Path, step: int | None) -> None:
    path = tmp_path / "capture.csv"
    path.write_text(HEADER + line(row(value=" 12 ")) + line(row(value="13")) + line(row(gpu=1, value="14")))
    assert [value for *_, value in read_capture(path, step).readings] == [12.0, 13.0, 14.0]


def test_how_much_of_a_file_comes_after_a_position_is_told(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "capture.csv", gpus=50)
    source = open_source(path)
    size = path.stat().st_size
    assert source.bytes_after(0) == size
    chunk = source.read(75)
    assert source.bytes_after(chunk.position) == size - chunk.position
    with path.open("a") as file:
        file.write("more\n")
    assert source.bytes_after(chunk.position) == size - chunk.position + 5
    source.close()


def test_of_a_compressed_file_it_is_the_files_own_bytes(tmp_path: Path) -> None:
    plain = write_capture(tmp_path / "capture.csv", gpus=2000, samples=3)
    path = tmp_path / "capture.csv.gz"
    path.write_bytes(gzip.compress(plain.read_bytes()))
    source = open_source(path)
    for _ in range(3):
        chunk = source.read(3000)
    assert 0.4 < (source.bytes_after(chunk.position) or 0) / path.stat().st_size < 0.6
    assert source.bytes_after(read_rest(source).position) == 0
    source.close()
