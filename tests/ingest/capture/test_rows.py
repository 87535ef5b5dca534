from __future__ import annotations

import pytest

from ingest.capture.header import parse_header
from ingest.capture.rows import MAX_CACHED_GPUS, RowReader
from ingest.samples import Sample
from readings.checks import Refused
from readings.times import parse_time
from tests.ingest.captures import COLUMNS, METRICS, START, row, uuid_of


def reader(columns: tuple[str, ...] = COLUMNS, *, needs_timestamp: bool = True) -> RowReader:
    return RowReader(parse_header(columns, needs_timestamp=needs_timestamp), needs_timestamp=needs_timestamp)


def read(fields: list[str]) -> Sample:
    return reader().read(fields)


def test_a_row_becomes_a_reading_with_all_that_it_tells() -> None:
    sample = read(row(METRICS[1], gpu=9, value="66.781"))
    assert (sample.metric_name, sample.value, sample.time_ns) == (METRICS[1], 66.781, parse_time(START))
    gpu = sample.gpu
    assert (gpu.uuid, gpu.hostname, gpu.gpu_id, gpu.device) == (uuid_of(9), "host-01", 1, "nvidia1")
    assert gpu.model_name == "NVIDIA H100 80GB HBM3"
    assert gpu.driver_version == "535.129.03"
    assert dict(gpu.labels) == {"DCGM_FI_DRIVER_VERSION": "535.129.03"}


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
        ("1_000", "bad_number"),
        ("１２", "bad_number"),
        ("0x10", "bad_number"),
        ("warm", "bad_number"),
        ("9223372036854775794", "blank"),
        ("2147483634", "blank"),
        ("140737488355330.000000", "blank"),
        ("<<<NOT_SUPPORTED>>>", "not_supported"),
        ("<<<NULL>>>", "blank"),
    ],
)
def test_what_is_no_number_is_refused_with_its_reason_never_0(value: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        read(row(value=value))
    assert caught.value.reason == reason


def test_spaces_around_name_and_value_do_no_harm() -> None:
    sample = read(row(" DCGM_FI_DEV_DEC_UTIL ", value=" 12 "))
    assert (sample.metric_name, sample.value) == ("DCGM_FI_DEV_DEC_UTIL", 12.0)


@pytest.mark.parametrize(
    ("time", "ns"),
    [
        ("2025-07-18T20:42:34.123456789Z", 1752871354_123456789),
        ("1752871354", 1752871354_000000000),
        ("1752871354000", 1752871354_000000000),
        ("2025-07-18T13:42:34-07:00", 1752871354_000000000),
        ("2025-07-18 20:42:34", 1752871354_000000000),
    ],
)
def test_times_are_read_in_every_usual_form(time: str, ns: int) -> None:
    assert read(row(time=time)).time_ns == ns


@pytest.mark.parametrize("time", ["", "yesterday", "2025-07-18T20:42:61Z", "2025-13-01T00:00:00Z"])
def test_a_bad_time_is_refused(time: str) -> None:
    with pytest.raises(Refused) as caught:
        read(row(time=time))
    assert caught.value.reason == "bad_timestamp"


def test_a_bad_time_does_not_matter_where_times_are_not_used() -> None:
    assert reader(needs_timestamp=False).read(row(time="yesterday")).time_ns == 0


def test_a_short_row_is_refused_and_empty_fields_too_many_are_not() -> None:
    for fields in (row()[:-1], [*row(), "x"]):
        with pytest.raises(Refused) as caught:
            read(fields)
        assert caught.value.reason == "short_row"
    assert read([*row(), "", ""]).value == 50.0


def test_a_row_without_a_metric_name_or_an_identity_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        read(row(" "))
    assert caught.value.reason == "no_metric"
    fields = row(labels='gpu="0"')
    fields[4] = ""
    with pytest.raises(Refused) as caught:
        read(fields)
    assert caught.value.reason == "no_identity"


def test_the_labels_fill_in_what_the_columns_do_not_tell() -> None:
    rows = reader(("timestamp", "metric_name", "value", "labels_raw"))
    labels = (
        'UUID="GPU-1",gpu="3",device="nvidia3",modelName="NVIDIA A100, 80GB \\"SXM\\"",GPU_I_ID="3",'
        'GPU_I_PROFILE="1g.10gb",instance="node-7:9400",path="C:\\\\x",DCGM_FI_DEV_SERIAL="<<<NULL>>>"'
    )
    gpu = rows.read([START, METRICS[0], "5", labels]).gpu
    assert gpu.id == "GPU-1:3"
    assert (gpu.gpu_id, gpu.device, gpu.mig_profile, gpu.hostname) == (3, "nvidia3", "1g.10gb", "node-7")
    assert gpu.model_name == 'NVIDIA A100, 80GB "SXM"'
    assert dict(gpu.labels) == {"path": "C:\\x"}


def test_the_column_wins_over_labels_that_disagree_and_that_is_counted() -> None:
    rows = reader()
    for _ in range(2):
        assert rows.read(row(labels='UUID="GPU-other"')).gpu.uuid == uuid_of(0)
    assert rows.take_remarks() == {"label_conflict": 2}


def test_two_host_names_that_differ_count_as_a_conflict() -> None:
    rows = reader(("timestamp", "metric_name", "uuid", "value", "Hostname", "hostname"))
    assert rows.read([START, METRICS[0], "GPU-1", "5", "a", "a"]).gpu.hostname == "a"
    assert not rows.take_remarks()
    assert rows.read([START, METRICS[1], "GPU-1", "5", "old", "new"]).gpu.hostname == "new"
    assert rows.take_remarks() == {"label_conflict": 1}
    assert rows.read([START, METRICS[2], "GPU-1", "5", "old", ""]).gpu.hostname == "old"


def test_the_workload_is_taken_from_the_exported_columns() -> None:
    rows = reader(("timestamp", "metric_name", "uuid", "value", "pod", "exported_pod"))
    assert rows.read([START, METRICS[0], "GPU-1", "5", "dcgm-exporter-6ldbb", "training-0"]).gpu.pod == "training-0"
    assert not rows.remarks


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        ("labels", {}),
        ("version=535.129.03", {}),
        ("gpu=1", {}),
        ('hpc_job="job"1",DCGM_FI_DRIVER_VERSION="535"', {"DCGM_FI_DRIVER_VERSION": "535"}),
        ('rack="r1",note="cut of', {"rack": "r1"}),
        ('rack="r1",rack="r2"', {"rack": "r1"}),
        ('rack="r1",long="' + "x" * 5000 + '"', {"rack": "r1"}),
        ("x" * 200_000, {}),
    ],
)
def test_a_label_that_cannot_be_read_is_left_out_and_the_row_is_read(labels: str, kept: dict[str, str]) -> None:
    rows = reader()
    gpu = rows.read(row(labels=labels)).gpu
    assert (gpu.uuid, dict(gpu.labels)) == (uuid_of(0), kept)
    assert rows.take_remarks().total() == 1


def test_of_more_labels_than_fit_the_first_are_kept() -> None:
    rows = reader()
    gpu = rows.read(row(labels=",".join(f'l{number}="{number}"' for number in range(150)))).gpu
    assert list(gpu.labels) == [f"l{number}" for number in range(100)]
    assert rows.take_remarks() == {"too_many_labels": 1}


@pytest.mark.parametrize("labels", ["GPU_I_ID=3", 'gpu="0",GPU_I_ID="3', 'GPU_I_PROFILE="1g"10gb",GPU_I_ID="3"'])
def test_the_reading_of_a_mig_instance_that_cannot_be_read_does_not_pass_for_the_whole_gpu(labels: str) -> None:
    with pytest.raises(Refused) as caught:
        read(row(labels=labels))
    assert caught.value.reason == "bad_field"


@pytest.mark.parametrize(
    "uuid", ["", "00000000-0000-0000-0000-000000000000", "GPU-00000000-0000-0000-0000-000000000000", "N/A"]
)
def test_a_blank_uuid_is_no_identity_and_one_in_the_labels_counts(uuid: str) -> None:
    fields = row(labels='gpu="0"')
    fields[4] = uuid
    with pytest.raises(Refused) as caught:
        read(fields)
    assert caught.value.reason == "no_identity"
    fields[11] = 'UUID="GPU-5"'
    assert read(fields).gpu.uuid == "GPU-5"


def test_a_row_of_a_cpu_is_passed_over() -> None:
    rows = reader(("timestamp", "metric_name", "value", "labels_raw"))
    with pytest.raises(Refused) as caught:
        rows.read([START, "DCGM_FI_DEV_CPU_UTIL_TOTAL", "5", 'cpu="0",cpucore="3",Hostname="h"'])
    assert caught.value.reason == "not_a_gpu"


@pytest.mark.parametrize(
    ("columns", "labels", "host"),
    [
        ({"Hostname": "a", "instance": "b:9400", "node": "c"}, "", "a"),
        ({"instance": "10.4.0.13:9400", "node": "c"}, "", "10.4.0.13"),
        ({"instance": "[fd00::7]:9400"}, "", "fd00::7"),
        ({"node": "c", "kubernetes_node": "d"}, "", "c"),
        ({"host": "e"}, 'kubernetes_node="d"', "d"),
        ({"host": "e"}, 'instance="f:9400"', "f"),
        ({"instance": "b:9400"}, 'Hostname="g"', "g"),
        ({"Hostname": "localhost"}, 'node="h"', "h"),
        ({"Hostname": "localhost"}, "", "localhost"),
        ({"Hostname": ""}, "", ""),
    ],
)
def test_the_host_is_the_first_that_columns_or_labels_tell(columns: dict[str, str], labels: str, host: str) -> None:
    rows = reader(("timestamp", "metric_name", "uuid", "value", "labels_raw", *columns))
    assert rows.read([START, METRICS[0], "GPU-1", "5", labels, *columns.values()]).gpu.hostname == host
    assert not rows.take_remarks()


@pytest.mark.parametrize("index", ["", "x", "-1", "１"])
def test_an_index_that_is_no_number_is_unknown_not_0(index: str) -> None:
    fields = row(labels="")
    fields[2] = index
    rows = reader()
    assert rows.read(fields).gpu.gpu_id is None
    assert rows.take_remarks() == ({"bad_label": 1} if index else {})


def test_extra_columns_are_kept_as_labels() -> None:
    rows = reader(("timestamp", "metric_name", "uuid", "value", "pci_bus_id"))
    assert dict(rows.read([START, METRICS[0], "GPU-1", "5", "00000000:1B:00.0"]).gpu.labels) == {
        "pci_bus_id": "00000000:1B:00.0"
    }
    assert dict(rows.read([START, METRICS[0], "GPU-1", "5", ""]).gpu.labels) == {}


def test_all_metrics_of_a_gpu_share_one_gpu_object() -> None:
    rows = reader()
    assert rows.read(row(METRICS[0])).gpu is rows.read(row(METRICS[1])).gpu


def test_a_fleet_larger_than_the_cache_is_read_all_the_same() -> None:
    rows = reader(("timestamp", "metric_name", "uuid", "value"))
    for number in range(MAX_CACHED_GPUS + 2):
        assert rows.read([START, METRICS[0], f"GPU-{number}", "5"]).gpu.uuid == f"GPU-{number}"


def test_rows_that_name_no_gpu_are_passed_over_unless_their_metric_is_of_gpus() -> None:
    rows = reader(("timestamp", "metric_name", "uuid", "value", "device", "labels_raw"))
    for metric, device, labels, reason in (
        ("DCGM_FI_DEV_IB_X", "", 'ibdev="mlx5_0"', "not_a_gpu"),
        ("DCGM_FI_DEV_IB_X", "nvidia0", 'ibdev="mlx5_0"', "no_identity"),
        (METRICS[0], "", 'ibdev="mlx5_0"', "no_identity"),
    ):
        with pytest.raises(Refused, match=reason):
            rows.read([START, metric, "", "5", device, labels])
