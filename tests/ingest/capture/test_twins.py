"""Rows of a capture that differ in a label alone: each is a part of its GPU, or one of them is refused."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ingest.capture import twins
from ingest.capture.arrow import ColumnReader
from ingest.capture.source import CsvSource
from ingest.capture.twins import Described, LabelledRow, Twins
from ingest.parts import Parts
from ingest.shard import Shard
from tests.ingest.captures import COLUMNS, read_rest, row

TIMES = tuple(f"2025-07-18T20:42:{second:02}Z" for second in range(30))


def write(path: Path, *rows: list[str]) -> Path:
    quoted = (",".join('"' + field.replace('"', '""') + '"' for field in fields) for fields in (list(COLUMNS), *rows))
    path.write_text("\n".join(quoted) + "\n")
    return path


def labelled(metric: str, value: object, time: str = TIMES[0], gpu: int = 0, **labels: object) -> list[str]:
    return row(metric, gpu=gpu, value=str(value), time=time, labels=",".join(f'{k}="{v}"' for k, v in labels.items()))


def found(
    path: Path, pace: int | None = None, parts: Parts | None = None, **how: bool
) -> tuple[dict[tuple[str, str], list[float]], dict[str, int], int]:
    """The values of each series by GPU and name, the counts, and the number of refused rows."""
    with pytest.MonkeyPatch.context() as patch:
        if not how.get("by_column", True):
            patch.setattr(ColumnReader, "read", lambda *_: None)
        source = CsvSource(str(path), needs_timestamp=how.get("needs_timestamp", True), parts=parts)
        read = read_rest(source, pace)
        source.close()
    series: dict[tuple[str, str], list[float]] = {}
    for gpu, name, _, value in read.readings:
        series.setdefault((gpu.uuid, name), []).append(value)
        assert name != "my_metric" or "mood" not in gpu.labels
    return series, dict(read.counts), len(read.refused)


def lanes(times: tuple[str, ...] = TIMES, gpus: int = 3) -> list[list[str]]:
    return [
        labelled("my_metric", lane, time, gpu, lane=lane, mood="good" if lane else "bad")
        for gpu in range(gpus) for lane in range(2) for time in times
    ]  # fmt: skip


@pytest.mark.parametrize("pace", [None, 1, 7])
@pytest.mark.parametrize("by_column", [True, False])
@pytest.mark.parametrize("needs_timestamp", [True, False])
@pytest.mark.parametrize("order", ["by series", "by time", "any"])
def test_a_label_that_tells_rows_apart_is_found_at_every_pace(
    tmp_path: Path, pace: int | None, by_column: bool, needs_timestamp: bool, order: str
) -> None:
    rows = lanes()
    if order == "by time":
        rows.sort(key=lambda fields: fields[0])
    elif order == "any":
        random.Random(5).shuffle(rows)
    path = write(tmp_path / "capture.csv", *rows, *[row(gpu=gpu) for gpu in range(3)])
    if not by_column and needs_timestamp and pace is None:
        pace = 1000
    series, counts, refused = found(path, pace, by_column=by_column, needs_timestamp=needs_timestamp)
    assert {name for _, name in series} == {"my_metric:lane:0", "my_metric:lane:1", row()[1]}
    for (_, name), values in series.items():
        if name != row()[1]:
            assert values == [float(name[-1])] * len(TIMES)
    assert (counts, refused) == ({}, 0)


@pytest.mark.parametrize("pace", [None, 1, 7])
def test_of_rows_that_no_label_of_a_part_tells_apart_one_is_refused(tmp_path: Path, pace: int | None) -> None:
    rows = [labelled("m", value, fw_version=value) for value in (1, 2)]
    path = write(tmp_path / "capture.csv", row(gpu=1), *rows, row(gpu=2))
    series, counts, refused = found(path, pace)
    assert [values for (_, name), values in series.items() if name == "m"] == [[1.0]]
    assert (counts, refused) == ({"duplicate_row": 1}, 1)


@pytest.mark.parametrize("column", ["Hostname", "device", "gpu_id"])
@pytest.mark.parametrize("pace", [None, 1])
def test_of_rows_that_a_column_of_the_gpu_tells_apart_one_is_refused(
    tmp_path: Path, column: str, pace: int | None
) -> None:
    rows = [labelled("m", value) for value in (1, 2)]
    rows[1][COLUMNS.index(column)] = "7"
    series, counts, refused = found(write(tmp_path / "capture.csv", *rows), pace)
    assert (list(series.values()), counts, refused) == ([[1.0]], {"duplicate_row": 1}, 1)


def test_a_row_that_is_there_twice_with_all_its_labels_is_one_reading(tmp_path: Path) -> None:
    rows = [labelled("m", value, rack="r") for value in (1, 2)]
    _, counts, refused = found(write(tmp_path / "capture.csv", *rows))
    assert (counts, refused) == ({}, 0)


def test_labels_that_change_over_time_make_no_parts(tmp_path: Path) -> None:
    rows = [labelled("m", 1, time, rack=f"r{number // 10}") for number, time in enumerate(TIMES)]
    series, counts, _ = found(write(tmp_path / "capture.csv", *rows))
    assert {name for _, name in series} == {"m"}
    assert counts == {}


def test_pods_of_a_shared_gpu_are_no_parts(tmp_path: Path) -> None:
    rows = [labelled("m", 1, exported_pod=f"p{n}", vgpu=n) for n in range(3)]
    series, counts, _ = found(write(tmp_path / "capture.csv", *[[*r[:8], f"p{n}", *r[9:]] for n, r in enumerate(rows)]))
    assert [len(values) for values in series.values()] == [3]
    assert counts == {}


def test_a_part_that_was_found_once_is_kept(tmp_path: Path) -> None:
    kept = tmp_path / "parts.json"
    found(write(tmp_path / "both.csv", *lanes()), parts=Parts(kept))
    one = write(tmp_path / "one.csv", labelled("my_metric", 0, lane=0))
    assert {name for _, name in found(one)[0]} == {"my_metric"}
    assert {name for _, name in found(one, parts=Parts(kept))[0]} == {"my_metric:lane:0"}


def test_parts_without_end_are_refused_from_some_number_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.samples.MOST_PARTS", 10)
    rows = [labelled("my_metric", number, lane=number) for number in range(30)]
    series, counts, refused = found(write(tmp_path / "capture.csv", *rows))
    assert len(series) == 10
    assert (counts, refused) == ({"too_many_parts": 20}, 20)


def test_shards_refuse_each_row_once(tmp_path: Path) -> None:
    rows = [labelled("m", value, gpu=gpu, fw_version=value) for gpu in range(300) for value in (1, 2)]
    path = write(tmp_path / "capture.csv", *rows)
    refused = 0
    for place in range(3):
        source = CsvSource(str(path), needs_timestamp=True, shard=Shard(place, 3))
        refused += len(read_rest(source, None).refused)
        source.close()
    assert refused == 300


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "_MOST_REMEMBERED", 10)
    looking = Twins(Parts())
    for number in range(100):
        described = Described((f"GPU-{number}",), {"a": "b"})
        assert not looking.suspects(described, "m")
        assert looking.second([LabelledRow(described, "m", number, 1.0)]) == []
    assert len(looking._firsts) <= 10
    assert len(looking._seen) <= 10


@pytest.mark.parametrize("by_column", [True, False])
def test_owners_may_repeat_the_gpus_value_and_of_other_values_the_first_is_taken(
    tmp_path: Path, by_column: bool
) -> None:
    same = [labelled("m", 5, vgpu=n, pid=n) for n in range(3)]
    series, counts, _ = found(write(tmp_path / "same.csv", *same), by_column=by_column)
    assert (list(series.values()), counts) == ([[5.0] * 3], {})
    other = [labelled("m", value, vgpu=n, pid=n) for n, value in enumerate((5, 6, 5))]
    series, counts, _ = found(write(tmp_path / "other.csv", *other), by_column=by_column)
    assert (list(series.values()), counts) == ([[5.0] * 2], {"duplicate_row": 1})
