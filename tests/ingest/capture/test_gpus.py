from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from ingest.capture import gpus
from ingest.capture.gpus import GpuEntries, GpuTable
from ingest.capture.header import parse_header
from ingest.capture.rows import GpuDescription, RowReader
from tests.ingest.captures import COLUMNS, METRICS, row, uuid_of


def table_of(columns: Sequence[str] = COLUMNS) -> GpuTable:
    header = parse_header(columns, needs_timestamp=True)
    return GpuTable(header, RowReader(header, needs_timestamp=True))


def find(table: GpuTable, rows: Sequence[Sequence[str]]) -> GpuEntries:
    columns = [pa.array(list(column), pa.string()) for column in zip(*rows, strict=True)]
    names = list(dict.fromkeys(each[1] for each in rows))
    metric = np.array([names.index(each[1]) for each in rows])
    return table.find(pa.table(columns, [str(number) for number in range(len(columns))]), metric, names)


def uuids(found: GpuEntries) -> list[str]:
    return [found.gpus[place].uuid for place in found.gpu[found.entry].tolist()]


def test_the_metrics_of_a_gpu_are_of_one_description() -> None:
    table = table_of()
    rows = [row(metric, gpu) for metric in METRICS for gpu in (3, 1, 2)]
    found = find(table, rows)
    assert uuids(found) == [uuid_of(gpu) for gpu in (3, 1, 2)] * 3
    assert (len(found.gpus), len(found.gpu)) == (3, 3)
    assert not found.refused.any()
    again = find(table, rows[::-1])
    assert {id(gpu) for gpu in again.gpus} == {id(gpu) for gpu in found.gpus}
    assert uuids(again) == uuids(found)[::-1]


def test_what_differs_anywhere_is_described_by_itself() -> None:
    moved, podded = row(), row()
    moved[6] = "host-99"
    podded[8] = "train-0"
    found = find(table_of(), [row(), moved, podded, row()])
    gpus = [found.gpus[place] for place in found.gpu[found.entry].tolist()]
    assert [(gpu.hostname, gpu.pod) for gpu in gpus] == [
        ("host-00", ""),
        ("host-99", ""),
        ("host-00", "train-0"),
        ("host-00", ""),
    ]
    assert [found.remarks.get(number) for number in found.entry.tolist()] == [None, {"label_conflict"}, None, None]


def test_a_description_that_is_none_is_refused_each_time() -> None:
    table = table_of()
    nameless = row(labels="")
    nameless[4] = ""
    for _ in range(2):
        found = find(table, [row(), nameless, row(gpu=1, labels='GPU_I_ID="3')])
        assert found.refused[found.entry].tolist() == [False, True, True]


def test_labels_that_never_come_again_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "MAX_CACHED_GPUS", 50)
    monkeypatch.setattr(gpus, "_MAX_LABELS_HELD", 1000)
    table = table_of()
    for start in range(0, 400, 40):
        rows = [row(gpu=number, labels=f'n="{number}"') for number in range(start, start + 40)]
        assert uuids(find(table, rows)) == [uuid_of(number) for number in range(start, start + 40)]
    assert len(table._known) <= 120
    assert sum(map(len, table._raw_labels)) <= 1000
    assert table._texts_foreseen is not None
    assert table._texts_foreseen.nbytes <= 2000


def test_a_description_is_parsed_once_whichever_columns_are_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    describe = RowReader.describe

    def note(rows: RowReader, fields: Sequence[str]) -> GpuDescription:
        parsed.append(fields[4])
        return describe(rows, fields)

    monkeypatch.setattr(RowReader, "describe", note)
    table = table_of()
    blocks = [[1], [1, 1], [1, 2, 1], [2], [1, 9, 2], [9, 9]]  # 9 is of another host
    found = [uuids(find(table, [row(gpu=number) for number in block])) for block in blocks]
    assert found == [[uuid_of(number) for number in block] for block in blocks]
    assert parsed == [uuid_of(number) for number in (1, 2, 9)]


def test_texts_that_join_alike_are_told_apart() -> None:
    first, second = row(), row()
    first[2], first[3] = "0", "1"
    second[2], second[3] = "01", ""
    found = find(table_of(), [first, second])
    assert found.entry.tolist() == [0, 1]


def test_a_capture_may_tell_its_gpus_by_labels_alone() -> None:
    columns = ("timestamp", "metric_name", "value", "labels_raw")
    rows = [["", metric, "1", f'UUID="{uuid_of(gpu)}",__name__="{metric}"'] for metric in METRICS for gpu in (0, 1)]
    found = find(table_of(columns), rows)
    assert uuids(found) == [uuid_of(0), uuid_of(1)] * 3
    assert len(found.gpu) == 2


def test_labels_that_change_are_not_those_that_were_foreseen() -> None:
    table = table_of()
    rows = [row(metric, gpu) for metric in METRICS for gpu in (0, 1)]
    first = find(table, rows)
    assert find(table, rows).gpus == first.gpus  # as foreseen
    changed = [row(metric, gpu, labels=f'rack="r{gpu}",__name__="{metric}"') for metric in METRICS for gpu in (0, 1)]
    mixed = find(table, [*rows, *changed])
    assert [mixed.gpus[place].labels.get("rack") for place in mixed.gpu[mixed.entry].tolist()] == [
        *[None] * 6, *["r0", "r1"] * 3,
    ]  # fmt: skip
    for each in (changed, rows, changed):
        found = find(table, each)
        racks = {found.gpus[place].labels.get("rack") for place in found.gpu[found.entry].tolist()}
        assert racks == ({"r0", "r1"} if each is changed else {None})


def test_more_metrics_than_are_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_MOST_METRICS", 2)
    table = table_of()
    rows = [row(f"M{number}", gpu) for number in range(5) for gpu in (0, 1)]
    for _ in range(3):
        assert uuids(find(table, rows)) == [uuid_of(0), uuid_of(1)] * 5
