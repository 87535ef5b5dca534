"""nvidia-smi's CSV output is a capture like any other."""

from __future__ import annotations

import gzip
from datetime import timedelta, timezone
from pathlib import Path

import pytest

from ingest.capture.position import SourcePosition
from ingest.capture.smi import FIELDS, parse_smi_header
from ingest.capture.source import CsvSource
from ingest.errors import SourceError
from readings.catalogue import canonical_name
from readings.times import parse_time
from tests.ingest.captures import Read, read_rest

HEADER = (
    "timestamp, index, uuid, name, driver_version, serial, pci.bus_id, utilization.gpu [%], memory.used [MiB], power.draw [W], "
    "temperature.gpu, clocks.current.sm [MHz], pstate, clocks_event_reasons.active, ecc.mode.current, fan.speed [%]"
)
ROW = (
    "2026/11/27 20:42:34.123, {index}, GPU-0000007{index}-aaaa-4bbb-8ccc-000000000001, NVIDIA A10G, 570.86.15, 165492200{index}, "
    "00000000:0{index}:00.0, 45 %, 8000 MiB, 300.12 W, 55, 1410 MHz, P2, 0x0000000000000004, Enabled, [N/A]"
)
DEV = "DCGM_FI_DEV_"
VALUES = {
    "GPU_UTIL": 45.0,
    "FB_USED": 8000.0,
    "POWER_USAGE": 300.12,
    "GPU_TEMP": 55.0,
    "SM_CLOCK": 1410.0,
    "PSTATE": 2.0,
    "CLOCKS_EVENT_REASONS": 4.0,
    "ECC_MODE": 1.0,
}
TIME = parse_time("2026-11-27T20:42:34.123Z")


def capture(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines))
    return path


def read(path: Path, **options: object) -> Read:
    source = CsvSource(str(path), **{"needs_timestamp": True, "hostname": "lab-1", **options})  # type: ignore[arg-type]
    try:
        return read_rest(source)
    finally:
        source.close()


def values(read: Read) -> dict[str, float]:
    columns = read.columns
    return {
        columns.names[name].removeprefix(DEV): value
        for name, value in zip(columns.name.tolist(), columns.value.tolist(), strict=True)
    }


def test_columns_become_metrics_without_their_units(tmp_path: Path) -> None:
    found = read(capture(tmp_path / "a.csv", HEADER, ROW.format(index=0), ROW.format(index=1)))
    assert values(found) == VALUES
    assert found.columns.size == 2 * len(VALUES)
    assert set(found.columns.time_ns.tolist()) == {TIME}
    assert found.counts == {"not_supported": 2}
    assert found.refused == []
    gpu = found.columns.gpus[0]
    assert (gpu.uuid, gpu.gpu_id, gpu.hostname) == ("GPU-00000070-aaaa-4bbb-8ccc-000000000001", 0, "lab-1")
    assert (gpu.model_name, gpu.driver_version) == ("NVIDIA A10G", "570.86.15")
    assert gpu.labels["DCGM_FI_DEV_SERIAL"] == "1654922000"
    assert gpu.labels["pci_bus_id"] == "00000000:00:00.0"


@pytest.mark.parametrize(
    "form",
    [
        lambda text: text.replace(" %,", ",").replace(" MiB", "").replace(" W,", ",").replace(" MHz", ""),  # nounits
        lambda text: text.replace(", ", ","),
        lambda text: ",".join(f'"{field}"' for field in text.split(", ")),
        lambda text: ", ".join(f'"{field}"' for field in text.split(", ")),
        lambda text: text.replace(", ", ";").replace("300.12", "300,12"),
        lambda text: text.replace(", ", "\t"),
        lambda text: ", ".join(reversed(text.split(", "))),
    ],
)
def test_every_form_gives_the_same(tmp_path: Path, form: object) -> None:
    assert callable(form)
    path = capture(tmp_path / "a.csv", form(HEADER), form(ROW.format(index=0)), "", form(ROW.format(index=1)))
    found = read(path)
    assert values(found) == VALUES
    assert found.columns.size == 2 * len(VALUES)
    assert found.refused == []


def test_without_a_header_the_columns_are_named(tmp_path: Path) -> None:
    path = capture(tmp_path / "a.csv", ROW.format(index=0), ROW.format(index=1))
    with pytest.raises(SourceError, match=r"begins with a row, not with a header.*--columns timestamp,uuid"):
        read(path)
    names = [name.strip().partition(" ")[0] for name in HEADER.split(",")]
    found = read(path, columns=names)
    assert values(found) == VALUES
    assert found.columns.size == 2 * len(VALUES)
    with_header = read(capture(tmp_path / "b.csv", HEADER, ROW.format(index=0)), columns=names)
    assert with_header.columns.size == len(VALUES)


def test_headers_that_come_again_are_no_rows(tmp_path: Path) -> None:
    found = read(capture(tmp_path / "a.csv", HEADER, ROW.format(index=0), HEADER, ROW.format(index=1)))
    assert (found.columns.size, found.refused) == (2 * len(VALUES), [])


def test_a_value_that_cannot_be_read_costs_that_value_alone(tmp_path: Path) -> None:
    header = "timestamp, uuid, utilization.gpu [%], power.draw [W], temperature.gpu, memory.used [MiB]"
    row = "2026/11/27 20:42:34.123, GPU-1-2, {}, {}, 50, 1 GiB"
    found = read(
        capture(
            tmp_path / "a.csv",
            header,
            row.format("[Unknown Error]", "ERR!"),
            row.format("[Not Supported]", "3 bananas"),
            "yesterday, GPU-1-2, 1 %, 1 W, 1, 1 MiB",
            "2026/11/27 20:42:34.123, [N/A], 1 %, 1 W, 1, 1 MiB",
        )
    )
    assert values(found) == {"GPU_TEMP": 50.0, "FB_USED": 1024.0}
    assert found.counts == {
        "not_available": 2, "not_supported": 1, "bad_number": 1, "bad_timestamp": 1, "no_identity": 1,
    }  # fmt: skip
    assert [(row.line, row.reason) for row in found.refused] == [
        (2, "not_available"),
        (3, "bad_number"),
        (4, "bad_timestamp"),
        (5, "no_identity"),
    ]
    assert "utilization.gpu [%]: value '[Unknown Error]'; power.draw [W]: value 'ERR!'" in found.refused[0].detail


def test_times_without_a_zone_are_of_the_zone_that_is_named(tmp_path: Path) -> None:
    path = capture(tmp_path / "a.csv", "timestamp, uuid, pstate", "2026/11/27 20:42:34.123, GPU-1-2, P0")
    found = read(path, zone=timezone(timedelta(hours=2)))
    assert found.columns.time_ns.tolist() == [TIME - 7200 * 10**9]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("uuid, utilization.gpu [%]", "without timestamp: add it"),
        ("timestamp, index, utilization.gpu [%]", "without uuid: nothing tells which GPU"),
        ("timestamp, uuid, power.draw [W], power.draw [W]", "several columns for"),
        ("timestamp, uuid, power.draw [hp]", "has a unit that is not known here: wanted is W"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, header: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        read(capture(tmp_path / "a.csv", header, "1, 2, 3, 4"))


def test_times_may_be_missing_where_they_are_not_used(tmp_path: Path) -> None:
    path = capture(tmp_path / "a.csv", "uuid, power.draw [W]", "GPU-1-2, 70 W")
    assert values(read(path, needs_timestamp=False)) == {"POWER_USAGE": 70.0}


def test_without_uuid_a_serial_or_a_place_on_the_bus_tells_gpus_apart(tmp_path: Path) -> None:
    header, row = "timestamp, {}, pstate, memory.speed", "2026/11/27 20:42:34.123, {}, P0, 7"
    for name, given, uuid in (
        ("serial", "1654922000", "serial-1654922000"),
        ("pci.bus_id", "00000000:01:00.0", "lab-1-00000000-01-00.0"),
    ):
        path = capture(tmp_path / "a.csv", header.format(name), row.format(given))
        assert [gpu.uuid for gpu in read(path).columns.gpus] == [uuid]
        source = CsvSource(str(path), needs_timestamp=True)
        assert any("without uuid" in note for note in source.notes)
        assert any("left out: memory.speed" in note for note in source.notes)
        source.close()


def test_a_later_run_goes_on_where_the_first_one_stopped_and_the_last_time_is_found(tmp_path: Path) -> None:
    path = capture(tmp_path / "a.csv", HEADER, *[ROW.format(index=index) for index in range(9)])
    first = CsvSource(str(path), needs_timestamp=True)
    assert first.last_time(1 << 62, lambda: False) == TIME
    chunk = first.read(4)
    assert chunk.columns.size == 4 * len(VALUES)
    state = first.state_at(SourcePosition(chunk.position, chunk.line, 0), "source")
    first.close()
    assert state is not None
    second = CsvSource(str(path), needs_timestamp=True)
    assert second.resume(state, "source")
    assert read_rest(second).columns.size == 5 * len(VALUES)
    second.rewind()
    assert read_rest(second).columns.size == 9 * len(VALUES)
    second.close()


def test_it_may_be_compressed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(f"{HEADER}\n{ROW.format(index=0)}\n".encode()))
    assert values(read(path)) == VALUES


def test_two_columns_of_one_metric_never_meet() -> None:
    """Where nvidia-smi has two names for one field, both give the same metric, and a header may have one of them."""
    header = parse_smi_header(["timestamp", "uuid", "clocks.sm", "clocks.mem"], needs_timestamp=True, delimiter=",")
    assert header is not None
    assert len(header.values) == 2
    assert all(canonical_name(field.metric) == field.metric for field in FIELDS.values())
