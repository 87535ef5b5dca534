"""What data from real fleets looks like, case by case: from the source over the wire into store and inventory."""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta, timezone
from pathlib import Path

import pytest
import zstandard
from django.test import Client
from pytest_django import Settings

from ingest.capture.source import CsvSource
from ingest.errors import SourceError
from ingest.exporter.exposition import Exposition, NotMetrics
from inventory.models import GPU, Placement, Residence
from inventory.summaries import host_summaries
from inventory.sync.memory import save_sightings
from inventory.sync.sightings import Sightings
from readings.batch import decode, encode_block
from readings.blocks import BlockBuilder, blocks
from readings.checks import COUNTER_RESET, check_block
from readings.model import PointBlock
from readings.times import SECOND, parse_time
from stores.aggregate.buckets import Buckets
from stores.base import PodAssignment, ReadingsQuery, SeriesQuery, Store
from stores.memory import MemoryStore
from stores.open import get_store, reset_store
from tests.ingest.captures import COLUMNS, read_capture, read_rest
from tests.ingest.exporter.test_scraper import Handler, saying, scrape_once, serving
from tests.inventory.building import latest, values
from tests.stores.making import Row, rows

pytestmark = pytest.mark.django_db

T = "2025-07-18T20:42:34Z"
NOW = parse_time("2025-07-18T20:45:00Z")
HOUR = 3600 * SECOND
UUID = "GPU-5fd4f087-86f3-7a43-b711-4771313afc50"
HOST = "mtv5-dgx1-hgpu-031"
UTIL, TEMP, POWER = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE"
USED = "DCGM_FI_DEV_FB_USED"


@dataclass
class Pipeline:
    """Source, codec, checks, store and inventory in a row, as streamer and collector join them."""

    folder: Path
    retention_ns: int = 24 * HOUR

    def __post_init__(self) -> None:
        self.store: Store = MemoryStore()
        self.refused: Counter[str] = Counter()
        self.raw: list[str] = []

    def capture(self, *rows: str | bytes, header: str = ",".join(COLUMNS), ending: str = "\n") -> list[Row]:
        """Take in a capture of these lines; returns all that is stored by now."""
        path = self.folder / "capture.csv"
        lines = [row if isinstance(row, bytes) else (row + ending).encode() for row in (header, *rows)]
        path.write_bytes(b"".join(lines))
        return self.file(path)

    def file(self, path: Path) -> list[Row]:
        """Take in a capture by blocks; at a pace, row by row, it must give the same."""
        read, paced = read_capture(path), read_capture(path, max_rows=1)
        made = list(blocks([read.columns], 100))
        assert (list(blocks([paced.columns], 100)), *paced[1:]) == (made, *read[1:])
        self.refused.update(read.counts)
        self.raw += [row.raw for row in read.refused]
        return self._deliver(made)

    def scrape(self, body: str, now_ns: int = NOW, exporter: Exposition | None = None) -> list[Row]:
        """Take in an exporter's answer; returns all that is stored by now."""
        scraped = (exporter or Exposition("exporter")).read(body, now_ns)
        self.refused.update(scraped.counts)
        self.raw += [row.raw for row in scraped.refused]
        builder = BlockBuilder()
        for sample in scraped.samples:
            builder.add(*sample)
        return self._deliver(builder.blocks(100))

    def _deliver(self, made: Iterable[PointBlock]) -> list[Row]:
        for block in made:
            decoded = decode(encode_block(block, batch_id="b", source="s", collected_at=T))
            assert decoded.refusals == []
            good, refusals = check_block(decoded.block, now_ns=NOW, oldest_ns=NOW - self.retention_ns)
            self.refused.update(refusal.reason for refusal in refusals)
            self.store.write([good])
            sightings = Sightings()
            sightings.add(good)
            if resets := save_sightings(sightings):
                self.refused[COUNTER_RESET] += resets
        return self.rows()

    def rows(self) -> list[Row]:
        return rows(self.store.page(ReadingsQuery(limit=10_000, newest_first=False)))

    def values(self) -> dict[tuple[str, str], float]:
        """The last value stored of each series."""
        return {(row.gpu, row.metric_name): row.value for row in self.rows()}


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path)


@pytest.fixture
def web(pipeline: Pipeline, settings: Settings) -> Iterator[Client]:
    """Who asks the API about what the pipeline has stored."""
    settings.STORAGE_TYPE = "memory"
    reset_store()
    pipeline.store = get_store()
    yield Client()
    reset_store()


def row(
    metric: str, value: str, *, time: str = T, uuid: str = UUID, gpu: str = "0", host: str = HOST, labels: str = "",
    pod: str = "", namespace: str = "", container: str = "",
) -> str:  # fmt: skip
    quoted = labels.replace('"', '""')
    return (
        f'"{time}","{metric}","{gpu}","nvidia{gpu}","{uuid}","NVIDIA H100 80GB HBM3","{host}",'
        f'"{container}","{pod}","{namespace}","{value}","{quoted}"'
    )


def text(name: str, value: str, **labels: str) -> str:
    told = {"gpu": "0", "UUID": UUID, "Hostname": HOST, **labels}
    labels_text = ",".join(f'{label}="{word}"' for label, word in told.items())
    return f"{name}{{{labels_text}}} {value}\n"


def refused_alone(pipeline: Pipeline, metric: str, value: str, reason: str) -> None:
    """The value is refused for the reason, as capture and as text, and a good reading beside it is stored."""
    good = "DCGM_FI_DEV_MEM_CLOCK"
    rows = pipeline.capture(row(good, "2619"), row(metric, value))
    assert {each.metric_name for each in rows} == {good}
    assert pipeline.refused == {reason: 1}
    rows = pipeline.scrape(text(good, "2619") + text(metric, value))
    assert {each.metric_name for each in rows} == {good}
    assert pipeline.refused == {reason: 2}
    assert metric not in values(GPU.objects.get().pk)  # unknown is never 0


@pytest.mark.parametrize(
    "value",
    ["9223372036854775792", "9223372036854775793", "9223372036854775794", "9223372036854775795", "9223372036854776000"],
)
def test_01_int64_blanks(pipeline: Pipeline, value: str) -> None:
    refused_alone(pipeline, "DCGM_FI_DEV_MEMORY_TEMP", value, "blank")


@pytest.mark.parametrize("value", ["2147483632", "2147483633", "2147483634", "2147483635"])
def test_02_int32_blanks(pipeline: Pipeline, value: str) -> None:
    refused_alone(pipeline, "DCGM_FI_DEV_PCIE_REPLAY_COUNTER", value, "blank")


def test_02_the_number_before_the_int32_blanks_is_a_value(pipeline: Pipeline) -> None:
    rows = pipeline.capture(row("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "2147483631"))
    assert [each.value for each in rows] == [2147483631.0]


@pytest.mark.parametrize("last", [28, 29, 30, 31])
def test_03_fp64_blanks(pipeline: Pipeline, last: int) -> None:
    refused_alone(pipeline, "DCGM_FI_PROF_SM_ACTIVE", f"1407374883553{last}.000000", "blank")


def test_04_string_blanks(pipeline: Pipeline) -> None:
    refused_alone(pipeline, UTIL, "<<<NULL>>>", "blank")
    pipeline.refused.clear()
    refused_alone(pipeline, UTIL, "<<<NOT_SUPPORTED>>>", "not_supported")


def test_04_a_blank_label_is_none(pipeline: Pipeline) -> None:
    pipeline.capture(row(UTIL, "5", labels='DCGM_FI_DEV_SERIAL="<<<NULL>>>",DCGM_FI_DRIVER_VERSION="535"'))
    assert GPU.objects.get().labels == {"DCGM_FI_DRIVER_VERSION": "535"}


def test_05_a_value_that_could_not_be_printed(pipeline: Pipeline) -> None:
    bad = 'DCGM_FI_DEV_VGPU_INSTANCE_IDS{gpu="0"} ERROR - FAILED TO CONVERT TO STRING\n'
    rows = pipeline.scrape(text(UTIL, "1") + bad + text(TEMP, "50"))
    assert {each.metric_name for each in rows} == {UTIL, TEMP}
    assert pipeline.raw == [bad.strip()]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("N/A", "not_available"),
        ("[N/A]", "not_supported"),
        ("[Not Supported]", "not_supported"),
        ("-", "not_available"),
        ("", "not_available"),
        ("nan", "non_finite"),
        ("+Inf", "non_finite"),
    ],
)
def test_06_not_available_and_not_finite(pipeline: Pipeline, value: str, reason: str) -> None:
    refused_alone(pipeline, UTIL, value, reason)


@pytest.mark.parametrize("value", ["1_000", "１２", "0x10"])
def test_07_numbers_that_only_python_takes(pipeline: Pipeline, value: str) -> None:
    refused_alone(pipeline, "DCGM_FI_DEV_SM_CLOCK", value, "bad_number")


def test_07_blanks_around_a_number_are_none_of_it(pipeline: Pipeline) -> None:
    assert [each.value for each in pipeline.capture(row(UTIL, " 12 "))] == [12.0]


@pytest.mark.parametrize(
    ("metric", "value"), [(UTIL, "2619"), (UTIL, "1980"), (UTIL, "4294967295"), (TEMP, "345"), (TEMP, "82505")]
)
def test_08_a_spike_of_another_field(pipeline: Pipeline, metric: str, value: str) -> None:
    pipeline.capture(row(UTIL, "40"), row(TEMP, "50"), row(UTIL, "60", uuid="GPU-other", gpu="1"))
    before = host_summaries()[0].mean_utilisation
    pipeline.capture(row(metric, value, time="2025-07-18T20:42:44Z"))
    assert pipeline.refused == {"out_of_range": 1}
    assert pipeline.values()[UUID, UTIL] == 40.0
    assert values(UUID)[metric] == {UTIL: 40.0, TEMP: 50.0}[metric]
    assert host_summaries()[0].mean_utilisation == before == 50.0


@pytest.mark.parametrize(
    ("driver_label", "value", "expected"),
    [
        ("DCGM_FI_DRIVER_VERSION", "87", 87.0),
        ("DCGM_FI_SYSTEM_DRIVER_VERSION", "0.87", 87.0),
        ("DCGM_FI_DRIVER_VERSION", "1", 1.0),
        ("DCGM_FI_SYSTEM_DRIVER_VERSION", "1", 100.0),
    ],
)
def test_09_ratio_or_percent(pipeline: Pipeline, driver_label: str, value: str, expected: float) -> None:
    name = UTIL + "_RATIO"
    rows = pipeline.scrape(text(name, value, **{driver_label: "570"}))
    rows += pipeline.capture(row(name, value, labels=f'{driver_label}="570"'))
    assert {(each.metric_name, each.value) for each in rows} == {(UTIL, expected)}


def test_10_renamed_units(pipeline: Pipeline) -> None:
    names = {"DCGM_FI_DEV_SM_CLOCK_HERTZ": "1980000000", "DCGM_FI_DEV_FB_CAPACITY_BYTES": "85520809984"}
    pipeline.scrape("".join(text(name, value) for name, value in names.items()))
    expected = {(UUID, "DCGM_FI_DEV_SM_CLOCK"): 1980.0, (UUID, "DCGM_FI_DEV_FB_TOTAL"): 81559.0}
    assert pipeline.values() == expected
    pipeline.capture(row("DCGM_FI_DEV_SM_CLOCK", "1980"), row("DCGM_FI_DEV_FB_TOTAL", "81559"))
    assert pipeline.values() == expected


def test_11_the_case_of_hostname(pipeline: Pipeline) -> None:
    both = "timestamp,metric_name,uuid,value,Hostname,hostname"
    for number, (old, new, conflicts) in enumerate([("a", "a", 0), ("a", "b", 1)]):
        pipeline.refused.clear()
        rows = pipeline.capture(f"{T},{UTIL},GPU-{number},5,{old},{new}", header=both)
        assert rows[-1].hostname == new
        assert pipeline.refused["label_conflict"] == conflicts
    rows = pipeline.capture(f"{T},{UTIL},GPU-9,5,c", header="timestamp,metric_name,uuid,value,hostname")
    assert rows[-1].hostname == "c"
    rows = pipeline.scrape(text(UTIL, "5", UUID="GPU-10", Hostname="a", hostname="b"))
    assert {each.hostname for each in rows if each.uuid == "GPU-10"} == {"b"}


def test_12_a_column_that_is_there_twice(pipeline: Pipeline) -> None:
    with pytest.raises(SourceError, match="names the column 'value' twice"):
        pipeline.capture(f"{T},{UTIL},GPU-1,1,2", header="timestamp,metric_name,uuid,value,value")


def test_13_missing_extra_and_reordered_columns(pipeline: Pipeline) -> None:
    rows = pipeline.capture(
        f"5,00000000:1B:00.0,GPU-1,{UTIL},{T}", header="value,pci_bus_id,uuid,metric_name,timestamp"
    )
    assert [(each.uuid, each.value) for each in rows] == [("GPU-1", 5.0)]
    assert GPU.objects.get().labels == {"pci_bus_id": "00000000:1B:00.0"}
    rows = pipeline.capture(f'{T},{UTIL},6,"UUID=""GPU-2"""', header="timestamp,metric_name,value,labels_raw")
    assert {each.uuid for each in rows} == {"GPU-1", "GPU-2"}
    for header in (
        "metric_name,value,uuid",
        "timestamp,value,uuid",
        "timestamp,metric_name,uuid",
        "timestamp,metric_name,value",
    ):
        with pytest.raises(SourceError, match="lacks the column"):
            pipeline.capture("1,2,3", header=header)


def test_14_a_cut_row(pipeline: Pipeline) -> None:
    cut = f'"{T}","{UTIL}","0","nvid'
    rows = pipeline.capture(row(UTIL, "5"), row(TEMP, "50"), cut.encode())
    assert len(rows) == 2
    assert pipeline.refused == {"short_row": 1}
    assert pipeline.raw == [cut]


def test_15_a_byte_order_mark_and_crlf(pipeline: Pipeline) -> None:
    rows = pipeline.capture(row(UTIL, "5"), header="\ufeff" + ",".join(COLUMNS), ending="\r\n")
    assert [each.value for each in rows] == [5.0]


def test_16_utf16_nul_and_oversize(pipeline: Pipeline) -> None:
    path = pipeline.folder / "excel.csv"
    path.write_bytes((",".join(COLUMNS) + "\n" + row(UTIL, "5")).encode("utf-16"))
    with pytest.raises(SourceError, match="is UTF-16 text"):
        pipeline.file(path)
    rows = pipeline.capture("a,\0b", row(UTIL, "5", labels="x" * 131_073), row(UTIL, "6"))
    assert [each.value for each in rows] == [6.0]  # two rows of one reading, of which the later one counts
    assert pipeline.refused == {"short_row": 1, "bad_label": 1}


def test_17_labels_with_escapes_and_commas(pipeline: Pipeline) -> None:
    labels = r'modelName="NVIDIA A100, 80GB \"SXM\"",path="C:\\x",note="a\nb"'
    pipeline.capture(row(UTIL, "5", labels=labels).replace("NVIDIA H100 80GB HBM3", ""))
    gpu = GPU.objects.get()
    assert gpu.model_name == 'NVIDIA A100, 80GB "SXM"'
    assert gpu.labels == {"path": "C:\\x", "note": "a\nb"}


def test_17_labels_that_the_exporter_did_not_escape(pipeline: Pipeline) -> None:
    rows = pipeline.scrape(text(UTIL, "5", hpc_job='job"1') + text(TEMP, "50"))
    assert {each.metric_name: each.value for each in rows} == {UTIL: 5.0, TEMP: 50.0}
    assert pipeline.refused == {"bad_label": 1}
    pipeline.refused.clear()
    rows = pipeline.scrape(text(POWER, "5", GPU_I_ID='3"') + text(TEMP, "51"))
    assert {each.metric_name for each in rows} == {UTIL, TEMP}  # not the whole GPU's power
    assert pipeline.refused == {"bad_field": 1}


def test_18_labels_that_disagree_with_columns(pipeline: Pipeline) -> None:
    rows = pipeline.capture(row(UTIL, "5", labels='UUID="GPU-other"'))
    assert [each.uuid for each in rows] == [UUID]
    assert pipeline.refused == {"label_conflict": 1}


@pytest.mark.parametrize("form", ["capture", "text"])
def test_19_mig_instances(pipeline: Pipeline, form: str) -> None:
    for number in range(7):
        mig = {"GPU_I_PROFILE": "1g.10gb", "GPU_I_ID": str(number)}
        if form == "text":
            pipeline.scrape(text(USED, "4864", **mig) + text(POWER, "300", **mig))
        else:
            labels = ",".join(f'{name}="{value}"' for name, value in mig.items())
            pipeline.capture(row(USED, "4864", labels=labels), row(POWER, "300", labels=labels))
    assert {gpu for gpu, metric in pipeline.values() if metric == USED} == {f"{UUID}:{number}" for number in range(7)}
    summary = host_summaries()[0]
    assert (summary.gpu_count, summary.power_watts, summary.memory_used_mib) == (1, 300.0, 7 * 4864.0)


@pytest.mark.parametrize("form", ["capture", "text"])
def test_20_a_shared_gpu(pipeline: Pipeline, form: str) -> None:
    if form == "text":
        pipeline.scrape(text(USED, "60000") + text(USED, "40000", pod="a") + text(USED, "20000", pod="b"))
    else:
        pipeline.capture(row(USED, "60000"), row(USED, "40000", pod="a"), row(USED, "20000", pod="b"))
    assert pipeline.values() == {(UUID, USED): 60000.0}
    assert host_summaries()[0].memory_used_mib == 60000.0
    (namespace,) = {each.namespace for each in Placement.objects.filter(share=True)}
    query = SeriesQuery(
        metric_name=USED, buckets=Buckets(NOW - HOUR, NOW + 1, HOUR), by="pod",
        assignments=tuple(PodAssignment(UUID, namespace, pod, "", 0, None) for pod in "ab"),
    )  # fmt: skip
    shares = pipeline.store.series(query)
    assert {each.group[1]: max(filter(None, each.values)) for each in shares} == {"a": 40000.0, "b": 20000.0}


def test_21_several_jobs_of_one_gpu(pipeline: Pipeline) -> None:
    pipeline.scrape(text(UTIL, "80", hpc_job="101") + text(UTIL, "80", hpc_job="102"))
    assert [(each.value, each.pod) for each in pipeline.rows()] == [(80.0, "")]
    assert set(Placement.objects.values_list("namespace", "pod", "share")) == {
        ("hpc_job", "101", True),
        ("hpc_job", "102", True),
    }


def test_22_links_and_what_is_no_gpu(pipeline: Pipeline) -> None:
    link = "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL"
    pipeline.scrape(
        "".join(f'{link}{{nvlink="{n}",gpu="0",gpu_uuid="{UUID}"}} {n}\n' for n in (3, 4))
        + 'DCGM_FI_DEV_CPU_UTIL_TOTAL{cpu="0"} 12\nDCGM_FI_DEV_NVSWITCH_POWER{nvswitch="1"} 5\n'
    )
    assert pipeline.values() == {(UUID, f"{link}:nvlink:3"): 3.0, (UUID, f"{link}:nvlink:4"): 4.0}
    assert [gpu.id for gpu in GPU.objects.all()] == [UUID]
    assert pipeline.refused == {"not_a_gpu": 2}


def test_23_order_repetitions_and_clocks(pipeline: Pipeline) -> None:
    pipeline.capture(row(UTIL, "7", time="2025-07-18T20:42:37Z"))
    late = row(UTIL, "4", time="2025-07-18T20:42:34Z")
    assert [each.value for each in pipeline.capture(late, late)] == [4.0, 7.0]
    assert values(GPU.objects.get().pk)[UTIL] == 7.0
    pipeline.capture(row(UTIL, "1", time="2025-07-18T22:45:00Z"), row(UTIL, "1", time="1970-01-01T00:00:10Z"))
    assert pipeline.refused == {"future": 1, "too_old": 1}
    assert [each.value for each in pipeline.rows()] == [4.0, 7.0]


@pytest.mark.parametrize(
    ("time", "ns"),
    [
        ("2025-07-18T20:42:34.123456789Z", 1_752_871_354_123_456_789),
        ("1752871354", 1_752_871_354_000_000_000),
        ("1752871354000", 1_752_871_354_000_000_000),
        ("1752871354000000", 1_752_871_354_000_000_000),
        ("1752871354000000000", 1_752_871_354_000_000_000),
        ("2025-07-18T13:42:34-07:00", 1_752_871_354_000_000_000),
        ("2025-07-18 20:42:34", 1_752_871_354_000_000_000),
    ],
)
def test_24_forms_of_time(pipeline: Pipeline, time: str, ns: int) -> None:
    assert [each.time_ns for each in pipeline.capture(row(UTIL, "5", time=time))] == [ns]


def test_24_a_time_that_is_none(pipeline: Pipeline) -> None:
    assert pipeline.capture(row(UTIL, "5", time="2025-07-18T20:42:60Z")) == []
    assert pipeline.refused == {"bad_timestamp": 1}


def test_25_a_counter_that_starts_again_and_an_xid_that_is_told_no_more(pipeline: Pipeline) -> None:
    energy, xid = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_XID_ERRORS"
    exporter = Exposition()
    pipeline.scrape(text(energy, "9.1e11") + text(xid, "79"), NOW - 10 * SECOND, exporter)
    pipeline.scrape(text(energy, "4.0e5"), NOW, exporter)
    assert [each.value for each in pipeline.rows() if each.metric_name == energy] == [9.1e11, 4.0e5]
    assert pipeline.refused == {"counter_reset": 1}  # counted, and kept
    # Absence is no recovery: the last value stays, with its time.
    assert latest(GPU.objects.get().pk)[xid] == (79.0, NOW - 10 * SECOND)


def test_25_what_a_counter_grew_by_is_never_negative(pipeline: Pipeline, web: Client) -> None:
    energy = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
    for second, value in enumerate(("9.1e11", "9.2e11", "4.0e5", "5.0e5")):
        pipeline.scrape(text(energy, value), NOW + (second - 10) * SECOND)
    answer = web.get(
        "/api/v1/query",
        {"metric": energy, "agg": "increase", "every": "1h", "start_time": "2025-07-18T20:00:00Z",
         "end_time": "2025-07-18T21:00:00Z"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.content
    assert [value for _, value in answer.json()["data"][0]["points"]] == [1e10 + 4.0e5 + 1.0e5]


def test_26_negative_values_and_one_type_for_all(pipeline: Pipeline) -> None:
    pipeline.capture(row(UTIL, "-1"), row(POWER, "66.781"), row("DCGM_FI_DEV_SM_CLOCK", "345.000000"), row(TEMP, "50"))
    assert pipeline.refused == {"out_of_range": 1}
    assert [(each.value, type(each.value)) for each in pipeline.rows()] == [
        (50.0, float),
        (66.781, float),
        (345.0, float),
    ]


def test_27_a_gpu_that_moves_and_one_that_takes_its_place(pipeline: Pipeline) -> None:
    later, last = "2025-07-18T20:43:34Z", "2025-07-18T20:44:34Z"
    pipeline.capture(row(UTIL, "1", host="a"))
    pipeline.capture(row(UTIL, "2", host="b", gpu="3", time=later))
    gpu = GPU.objects.get()
    assert (str(gpu.host), gpu.index) == ("b", 3)
    assert {(str(each.host), each.index, each.until is None) for each in Residence.objects.all()} == {
        ("a", 0, False),
        ("b", 3, True),
    }
    pipeline.capture(row(UTIL, "3", uuid="GPU-new", host="b", gpu="3", time=last))
    slot = Residence.objects.filter(host__name="b", index=3).order_by("since")
    assert [each.gpu_id for each in slot] == [UUID, "GPU-new"]


@pytest.mark.parametrize("max_rows", [None, 1])
def test_14_a_line_that_is_still_being_written(pipeline: Pipeline, max_rows: int | None) -> None:
    path = pipeline.folder / "growing.csv"
    whole = row(UTIL, "5") + "\n"
    path.write_text(",".join(COLUMNS) + "\n" + whole[:30])
    source = CsvSource(str(path), needs_timestamp=True, follow=True)
    before = read_rest(source, max_rows)
    assert (before.readings, before.refused) == ([], [])
    with path.open("a") as file:
        file.write(whole[30:])
    assert [value for *_, value in read_rest(source, max_rows).readings] == [5.0]
    source.close()


def test_24_a_time_that_tells_no_zone(pipeline: Pipeline) -> None:
    path = pipeline.folder / "naive.csv"
    path.write_text(",".join(COLUMNS) + "\n" + row(UTIL, "5", time="2025-07-18 13:42:34") + "\n")
    source = CsvSource(str(path), needs_timestamp=True, zone=timezone(timedelta(hours=-7)))
    assert [time_ns for _, _, time_ns, _ in read_rest(source).readings] == [parse_time(T)]
    source.close()


@pytest.mark.parametrize("form", ["plain", "gz", "zst", "cut"])
def test_28_compressed_cut_and_joined_captures(pipeline: Pipeline, form: str) -> None:
    header = ",".join(COLUMNS) + "\n"
    members = [f"{header}{row(metric, '5')}\n".encode() for metric in (UTIL, TEMP)]
    squeezers: dict[str, Callable[[bytes], bytes]] = {"plain": bytes, "zst": zstandard.ZstdCompressor().compress}
    squeeze = squeezers.get(form, gzip.compress)
    data = b"".join(squeeze(member) for member in members)
    path = pipeline.folder / f"capture.csv.{form}"
    path.write_bytes(data[:-12] if form == "cut" else data)
    rows = pipeline.file(path)
    if form == "cut":
        assert UTIL in {each.metric_name for each in rows}
        assert pipeline.refused["bad_field"] >= 1
    else:
        assert {each.metric_name for each in rows} == {UTIL, TEMP}  # the header in the middle is none
        assert not pipeline.refused


def test_29_oddities_of_the_text_format(pipeline: Pipeline) -> None:
    rows = pipeline.scrape(
        text(UTIL, "12 1752871354000") + text(TEMP, '50 # {trace_id="a"} 1.0') + f"# TYPE {UTIL} gauge\n# EOF"
    )
    assert {(each.metric_name, each.time_ns) for each in rows} == {(UTIL, 1_752_871_354_000_000_000), (TEMP, NOW)}
    without_newline = pipeline.scrape(text(POWER, "300").rstrip("\n"))
    assert len(without_newline) == 3
    for body in ("<html><body>404 page not found</body></html>", ""):
        with pytest.raises(NotMetrics):
            pipeline.scrape(body)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (saying("<html>404 page not found</html>", **{"Content-Type": "text/html"}), "answers text/html, not metrics"),
        (saying("<html>404 page not found</html>"), "the answer is HTML or JSON, not metrics text"),
        (saying(""), "the answer is empty"),
        (saying("\n \n"), "the answer is empty"),
        (saying(text(UTIL, "5") * 10_000), "larger than 65536 bytes"),
    ],
)
async def test_29_answers_that_are_failed_scrapes(said: Handler, reason: str) -> None:
    async with serving(said) as url:
        portions, statuses = await scrape_once(url, max_bytes=65_536)
    assert portions == []
    assert statuses[url].up is False
    assert reason in statuses[url].reason


def test_29_a_time_of_the_exporters_own_is_kept_through_to_the_store(pipeline: Pipeline) -> None:
    rows = pipeline.scrape(text(UTIL, "12 1752871354000") + text(UTIL, "13 1752871355000", UUID="GPU-2"))
    assert sorted((each.uuid, each.time_ns) for each in rows) == [
        ("GPU-2", 1_752_871_355_000_000_000),
        (UUID, 1_752_871_354_000_000_000),
    ]
    pipeline.scrape(text(UTIL, "14 0"))
    assert pipeline.refused == {"bad_timestamp": 1}


def test_30_a_formula_is_kept_as_it_is(pipeline: Pipeline) -> None:
    formula = '=HYPERLINK(""http://example.org"")'
    rows = pipeline.capture(row(UTIL, "5", pod=formula, namespace="+1"))
    assert (rows[0].pod, rows[0].namespace) == ('=HYPERLINK("http://example.org")', "+1")
    assert GPU.objects.get().pod == rows[0].pod


def test_30_a_formula_is_exported_as_it_is_and_made_harmless_when_asked(pipeline: Pipeline, web: Client) -> None:
    pipeline.capture(row(UTIL, "5", pod='=HYPERLINK(""http://example.org"")', namespace="+1"))
    asked = {"format": "csv", "start_time": T}
    exported = [
        list(csv.DictReader(io.StringIO(web.get("/api/v1/telemetry", {**asked, **safe}).getvalue().decode())))
        for safe in ({}, {"csv_safe": "true"})
    ]
    assert [(each["pod"], each["namespace"], each["value"]) for [each] in exported] == [
        ('=HYPERLINK("http://example.org")', "+1", "5.0"),
        ('\'=HYPERLINK("http://example.org")', "'+1", "5.0"),
    ]


@pytest.mark.parametrize("form", ["capture", "text"])
def test_31_a_ratio_of_a_mig_instance_may_be_above_one(pipeline: Pipeline, form: str) -> None:
    active, mig = "DCGM_FI_PROF_SM_ACTIVE", {"GPU_I_PROFILE": "3g.40gb", "GPU_I_ID": "1"}
    if form == "text":
        pipeline.scrape(text(active, "1.294", **mig))
    else:
        pipeline.capture(row(active, "1.294", labels=",".join(f'{name}="{value}"' for name, value in mig.items())))
    assert pipeline.values() == {(f"{UUID}:1", active): 1.294}
    assert pipeline.refused == {}


@pytest.mark.parametrize("form", ["capture", "text"])
def test_32_counters_under_the_names_that_open_telemetry_gives_them(pipeline: Pipeline, form: str) -> None:
    told = {
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION_total": "1.90722266e+08",
        "DCGM_FI_DEV_GPU_POWER_THROTTLE_SECONDS_TOTAL_total": "2",
        "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL_total": "5",
    }
    if form == "text":
        pipeline.scrape("".join(f"# TYPE {name} counter\n" + text(name, value) for name, value in told.items()))
    else:
        pipeline.capture(*(row(name, value) for name, value in told.items()))
    assert pipeline.values() == {
        (UUID, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"): 190722266.0,
        (UUID, "DCGM_FI_DEV_POWER_VIOLATION"): 2e9,
        (UUID, "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL"): 5.0,
    }


def test_32_since_when_a_counter_counts_is_no_reading(pipeline: Pipeline) -> None:
    energy = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
    pipeline.scrape(
        text(f"{energy}_total", "5") + text(f"{energy}_created", "1752871200") + text("my_own_created", "6") + "# EOF\n"
    )
    assert pipeline.values() == {(UUID, energy): 5.0, (UUID, "my_own_created"): 6.0}
    assert pipeline.refused == {}


@pytest.mark.parametrize("form", ["capture", "text"])
def test_33_pods_on_slices_of_a_gpu_have_no_part_of_it(pipeline: Pipeline, web: Client, form: str) -> None:
    told = [
        (metric, value, {"namespace": "ml", "pod": pod, "container": "main", "vgpu": str(number)})
        for metric, value in ((UTIL, "87"), (POWER, "68.244"), (USED, "9000"))
        for number, pod in enumerate(("one", "one", "two", "three"))
    ]
    if form == "text":
        pipeline.scrape("".join(text(metric, value, **labels) for metric, value, labels in told))
    else:
        quoted = [",".join(f'{name}="{word}"' for name, word in labels.items()) for _, _, labels in told]
        pipeline.capture(
            *(row(metric, value, labels=labels) for (metric, value, _), labels in zip(told, quoted, strict=True))
        )
    assert pipeline.values() == {(UUID, UTIL): 87.0, (UUID, POWER): 68.244, (UUID, USED): 9000.0}
    assert pipeline.refused == {}
    assert set(Placement.objects.values_list("namespace", "pod", "share")) == {
        ("ml", "one", True),
        ("ml", "two", True),
        ("ml", "three", True),
    }
    assert host_summaries()[0].memory_used_mib == 9000.0
    for by, group in (("namespace", {"namespace": "ml"}), ("pod", {"namespace": "ml", "pod": ""})):
        asked = {
            "metric": USED,
            "by": by,
            "agg": "sum",
            "start_time": T,
            "end_time": "2025-07-18T20:45:01Z",
            "every": "1h",
        }
        (series,) = web.get("/api/v1/query", asked).json()["data"]
        assert {name: word for name, word in series["group"].items() if word is not None} == group
        assert [value for _, value in series["points"]] == [9000.0]
