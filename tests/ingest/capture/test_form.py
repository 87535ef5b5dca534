from __future__ import annotations

from pathlib import Path

import pytest

from ingest.capture.source import CsvSource
from ingest.errors import SourceError
from readings.times import parse_time
from tests.ingest.captures import COLUMNS, METRICS, read_rest, row

TIMES = ("2025/07/18 20:42:34.5", "2025/07/18 20:42:34.5 UTC", "2025-07-18 20:42:34,5", "2025-07-18T20:42:34.5Z")


@pytest.mark.parametrize("separator", [";", "\t", ","])
@pytest.mark.parametrize("time", TIMES)
def test_separators_decimal_commas_and_times_in_both_readers(tmp_path: Path, separator: str, time: str) -> None:
    """By column, and (for the row with a blank) row by row."""
    if separator == "," and "," in time:
        time = f'"{time}"'
    number = "40.5" if separator == "," else "40,5"
    rows = [separator.join(COLUMNS)]
    for gpu in range(300):
        fields = row(METRICS[2], gpu, time, " 41 " if gpu == 7 else number, labels="")
        fields[0] = time.replace(":34", f":{gpu % 60:02}", 1) if '"' not in time else time
        rows.append(separator.join(fields))
    path = tmp_path / "a.csv"
    path.write_text("\n".join(rows) + "\n")
    source = CsvSource(str(path), needs_timestamp=True)
    found = read_rest(source)
    source.close()
    assert found.refused == []
    assert sorted(set(found.columns.value.tolist())) == [40.5, 41.0]
    assert found.columns.size == 300
    assert int(found.columns.time_ns.min()) % 10**9 == 500_000_000


def test_many_times_are_read_at_once_as_one_by_one(tmp_path: Path) -> None:
    for name, time in enumerate(
        ("2025/07/18 {:02}:{:02}:30.123456789", "2025-07-18T{:02}:{:02}:30", "2025/07/18 {:02}:{:02}:30 UTC")
    ):
        path = tmp_path / f"{name}.csv"
        times = [time.format(minute // 60, minute % 60) for minute in range(600)]
        lines = [",".join(row(METRICS[0], 0, each, 5, labels="")) for each in times]
        path.write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")
        source = CsvSource(str(path), needs_timestamp=True)
        found = read_rest(source).columns.time_ns.tolist()
        source.close()
        assert found == [parse_time(each) for each in times]


def test_a_spreadsheets_first_line_names_the_separator(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("sep=;\ntimestamp;metric_name;uuid;value\n2025-07-18T20:42:34Z;x;GPU-1-2;1,5\n;;;\n")
    source = CsvSource(str(path), needs_timestamp=True)
    found = read_rest(source)
    source.close()
    assert found.columns.value.tolist() == [1.5]
    assert [each.line for each in found.refused] == [4]


def test_columns_name_what_a_capture_without_a_header_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("2025-07-18T20:42:34Z;x;GPU-1-2;1,5\n")
    with pytest.raises(SourceError, match="begins with a row"):
        CsvSource(str(path), needs_timestamp=True)
    source = CsvSource(str(path), needs_timestamp=True, columns=["timestamp", "metric_name", "uuid", "value"])
    assert read_rest(source).columns.value.tolist() == [1.5]
    source.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# HELP DCGM_FI_DEV_GPU_UTIL x\n", "scrape the exporter itself"),
        ('DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-1"} 5\n', "scrape the exporter itself"),
        ("gpu,uuid=GPU-1 util=5 1752871354000000000\n", "line protocol"),
        ("#datatype,string,long\n#group,false\n", "annotated CSV"),
        ('{"metrics": []}\n', "JSON"),
        ("<?xml version='1.0'?>\n<nvidia_smi_log>\n", "XML"),
        ("==============NVSMI LOG==============\n", "full report"),
        ("# gpu   pwr  gtemp\n# Idx     W      C\n", "dmon"),
        ("#Entity   GPUTL\n", "dcgmi dmon"),
        ("+-----------------------------------+\n| NVIDIA-SMI 570 |\n", "nvidia-smi's table"),
        ("Thu Nov 27 20:42:34 2026       \n+------+\n", "nvidia-smi's table"),
        ("pid, process_name, used_gpu_memory [MiB]\n1, a, 5 MiB\n", "list of processes"),
        ("timestamp,uuid,DCGM_FI_DEV_GPU_UTIL\n1,2,3\n", "a column per metric"),
    ],
)
def test_other_forms_are_named_with_what_is_wanted(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(SourceError, match=said) as caught:
        CsvSource(str(path), needs_timestamp=True)
    assert "wanted is one row per metric" in str(caught.value)
    assert "\n" not in str(caught.value)
