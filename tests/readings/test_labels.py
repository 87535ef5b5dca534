from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readings.labels import (
    DROPPED,
    host_of,
    is_blank_identity,
    is_blank_text,
    is_of_no_gpu,
    label_conflicts,
    read_labels,
    split_labels,
    without_name,
    without_port,
)
from tests.costs import cost_of


def parse_labels(text: str) -> dict[str, str]:
    """The labels of a text that is good throughout."""
    labels, remarks = read_labels(text)
    assert remarks == []
    return labels


def test_escapes_and_commas_inside_values_are_kept_together() -> None:
    text = r'modelName="NVIDIA A100, 80GB \"SXM\"",path="C:\\x",note="a\nb"'
    assert parse_labels(text) == {"modelName": 'NVIDIA A100, 80GB "SXM"', "path": "C:\\x", "note": "a\nb"}


def test_what_prometheus_adds_is_dropped() -> None:
    assert parse_labels('__name__="m",gpu="0",instance="h:9400",job="dcgm"') == {
        "gpu": "0",
        "instance": "h:9400",  # tells the host where nothing better does
    }


@pytest.mark.parametrize("text", ["", "  ", "{}", 'a="",b="<<<NULL>>>"', 'job="x"'])
def test_labels_that_say_nothing_are_no_labels(text: str) -> None:
    assert parse_labels(text) == {}


@pytest.mark.parametrize("text", ['{a="1",b="2"}', 'a="1",b="2",', ' a = "1" , b="2" ', 'a="1",b="2",a="1"'])
def test_braces_blanks_a_last_comma_and_a_repeated_label_are_accepted(text: str) -> None:
    assert parse_labels(text) == {"a": "1", "b": "2"}


def test_an_unknown_escape_stands_for_itself() -> None:
    assert parse_labels(r'a="\d"') == {"a": r"\d"}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a", {}),
        ("a=", {}),
        ("version=535.129.03", {}),
        ('a="1', {}),
        ('a="1",b="2', {"a": "1"}),
        ('a="1" b="2",c="3"', {"c": "3"}),
        ('="1",c="3"', {"c": "3"}),
        ('a="x"y",b="2"', {"b": "2"}),
        ('a="1",,b="2"', {"a": "1", "b": "2"}),
        (',a="1"', {"a": "1"}),
        ('hpc_job="job"1",gpu="0",note="a,b=\\"c"', {"gpu": "0", "note": 'a,b="c'}),
        ('a="\\', {}),
        ("{'a': 'b'}", {}),
        ('b=2,{a="1"}', {}),
        ('a="1",a="2"', {"a": "1"}),
    ],
)
def test_what_is_no_label_is_left_out_with_its_place_and_the_others_are_read(text: str, kept: dict[str, str]) -> None:
    labels, remarks = read_labels(text)
    assert labels == kept
    assert len(remarks) == 1
    assert remarks[0].detail


def test_of_a_label_with_two_values_the_first_counts() -> None:
    labels, (remark,) = read_labels('gpu="0",gpu="true"')
    assert labels == {"gpu": "0"}
    assert remark.reason == "repeated_label"
    assert "the first value '0' is taken" in remark.detail


@pytest.mark.parametrize("text", ["GPU_I_ID=3", 'a="b",GPU_I_ID="3', 'GPU_I_PROFILE="1g"10gb"', "dra_mig_profile"])
def test_an_instance_that_cannot_be_read_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="the labels of the MIG instance cannot be read at character"):
        read_labels(text)


@pytest.mark.parametrize(
    "piece",
    [
        "}",
        "{",
        ",",
        '"',
        "\\",
        " ",
        "a",
        "=",
        'a="',
        'a="x"',
        'a="x",',
        ",a=",
        ', a="\\',
        'a="x"b,',
        '\\"',
        ' ="',
        "x,y ",
    ],
)
@pytest.mark.parametrize("around", ["{}", 'a="b",{}', '{},c="d"', 'a="{}'])
def test_labels_of_twice_the_size_cost_twice_as_much(piece: str, around: str) -> None:
    cost = cost_of(read_labels, [around.replace("{}", piece * (size // len(piece))) for size in (20_000, 80_000)])
    assert cost[1] < 4 * 3 * cost[0]


@pytest.mark.parametrize(
    ("labels", "host"),
    [
        ({"Hostname": "a", "instance": "b:1", "node": "c"}, "a"),
        ({"instance": "10.4.0.11:9400", "kubernetes_node": "k1"}, "10.4.0.11"),
        ({"node": "n", "kubernetes_node": "k1", "host": "h"}, "n"),
        ({"kubernetes_node": "k1", "host": "h"}, "k1"),
        ({"host": "h"}, "h"),
        ({"Hostname": "localhost", "node": "n"}, "n"),
        ({"Hostname": "localhost"}, "localhost"),
        ({"instance": "127.0.0.1:9400", "node": "n"}, "n"),
        ({"instance": "[::1]:9400"}, "::1"),
        ({"instance": "prometheus:9090", "exported_instance": "10.4.0.11:9400"}, "10.4.0.11"),
        ({"Hostname": "LOCALHOST", "node": "n"}, "n"),
        ({"Hostname": "127.0.1.1", "node": "127.example"}, "127.example"),
        ({"Hostname": "<<<NULL>>>", "hostname": " "}, ""),
        ({}, ""),
    ],
)
def test_the_host_is_the_first_that_the_labels_tell(labels: dict[str, str], host: str) -> None:
    assert host_of(labels) == host
    assert split_labels(labels)[0].get("hostname", "") == host


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("h:9400", "h"),
        ("h", "h"),
        ("[fd00::1]:9400", "fd00::1"),
        ("fd00::1", "fd00::1"),
        ("https://h:9400/metrics", "h"),
    ],
)
def test_an_address_without_its_port(address: str, host: str) -> None:
    assert without_port(address) == host


@pytest.mark.parametrize(
    "uuid",
    ["", " ", "-", "N/A", "[N/A]", "None", "unknown", "<<<NULL>>>", "GPU-", "GPU-00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000", "00000000", "0000000000000000000000000000", "GPU-00000000000000000000000000000000", "0x00000000", "GPU-FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "(null)", "nil", "NaN", "--", "?", "Unknown Error", "not_supported"],
)  # fmt: skip
def test_a_blank_identity_is_none(uuid: str) -> None:
    assert is_blank_identity(uuid)
    assert split_labels({"UUID": uuid, "gpu_uuid": "GPU-1"})[0] == {"uuid": "GPU-1"}
    assert "uuid" not in split_labels({"UUID": uuid})[0]


@pytest.mark.parametrize(
    "uuid",
    [
        "GPU-0",
        "0",
        "GPU-00000000-0000-0000-0000-000000000001",
        "MIG-1",
        "0000000000000001x",
        "GPU-f",
        "GPU-12345678-0000-0000-0000-ffffffffffff",
    ],
)
def test_an_identity_may_have_zeros(uuid: str) -> None:
    assert not is_blank_identity(uuid)


def test_rows_of_cpus_switches_and_links_are_of_no_gpu() -> None:
    for labels in ({"cpu": "0"}, {"nvswitch": "1", "nvlink": "2"}, {"cpucore": "3", "Hostname": "h"}):
        assert is_of_no_gpu(labels)
    for labels in ({"gpu": "0", "nvlink": "2"}, {"Hostname": "h"}, {"cpu": "0", "UUID": ""}):
        assert not is_of_no_gpu(labels)


names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,12}", fullmatch=True).filter(lambda name: name not in DROPPED)
values = st.text(max_size=20).filter(lambda value: value != "" and not is_blank_text(value))


@given(st.dictionaries(names, values, max_size=6))
def test_every_label_survives_being_escaped_and_read(labels: dict[str, str]) -> None:
    def escaped(value: str) -> str:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    assert parse_labels(",".join(f'{name}="{escaped(value)}"' for name, value in labels.items())) == labels


@given(st.text(alphabet='a1="\\,{} \n', max_size=30))
def test_any_text_gives_labels_or_a_remark(text: str) -> None:
    labels, remarks = read_labels(text)
    assert all(labels.values())
    assert all(remark.detail for remark in remarks)


@pytest.mark.parametrize("spelling", ["Hostname", "hostname"])
def test_every_spelling_of_a_column_is_folded(spelling: str) -> None:
    labels = {
        "UUID": "GPU-1",
        "gpu": "3",
        spelling: "node",
        "modelName": "H100",
        "GPU_I_ID": "7",
        "GPU_I_PROFILE": "1g.10gb",
    }
    columns, extras = split_labels({**labels, "pci_bus_id": "0000:01", "job": "x"})
    assert columns == {
        "uuid": "GPU-1",
        "gpu_id": "3",
        "hostname": "node",
        "model_name": "H100",
        "mig_id": "7",
        "mig_profile": "1g.10gb",
    }
    assert extras == {"pci_bus_id": "0000:01"}


def test_the_workloads_own_pod_wins_over_the_exporters() -> None:
    labels = {
        "pod": "dcgm-exporter-x",
        "namespace": "gpu-operator",
        "exported_pod": "train-0",
        "exported_namespace": "ml",
    }
    assert split_labels(labels) == ({"pod": "train-0", "namespace": "ml"}, {})


def test_blank_labels_are_neither_column_nor_extra() -> None:
    assert split_labels({"UUID": "<<<NULL>>>", "gpu_uuid": "GPU-1", "DCGM_FI_DEV_SERIAL": "<<<NULL>>>", "x": ""}) == (
        {"uuid": "GPU-1"},
        {},
    )


def test_a_conflict_is_a_column_that_the_labels_contradict() -> None:
    columns = {"uuid": "GPU-1", "model_name": "NVIDIA H100 80GB HBM3", "hostname": "", "device": "nvidia0"}
    told = {"uuid": "GPU-2", "model_name": "NVIDIA-H100-80GB-HBM3", "hostname": "node"}
    assert label_conflicts(columns, told) == ["uuid"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('UUID="GPU-1",__name__="X",gpu="0"', 'UUID="GPU-1",gpu="0"'),
        ('UUID="GPU-1",__name__="X"', 'UUID="GPU-1"'),
        ('__name__="X",gpu="0"', 'gpu="0"'),
        ('__name__="X"', ""),
        ("", ""),
    ],
)
def test_labels_without_a_name(text: str, expected: str) -> None:
    assert without_name(text) == expected
    assert parse_labels(text) == parse_labels(expected)


@pytest.mark.parametrize(
    "text",
    [
        'note="a,__name__="X"",b="c"',
        'note=",__name__="X",b"',
        'note= ",__name__="X",b"',
        'note="\\",__name__="X",b="c"',
        'note="a\\",__name__="X",b="c"',
        'note="a",__name__="X"b="c"',
        'note="a",__name__="X',
        'note="a",__name__="X,y",b="c"',
        '__name__="X",{a="b"}',
        '__name__="X" ,a="b"',
        '{a="b",__name__="X"}',
        '",__name__="X",b="c"',
    ],
)
def test_labels_stay_as_they_are_where_a_name_might_be_part_of_something_else(text: str) -> None:
    assert without_name(text) == text


def test_taking_the_name_out_changes_no_outcome() -> None:
    def outcome(text: str) -> object:
        labels, remarks = read_labels(text)
        return labels, bool(remarks)

    rng = random.Random(7)
    pieces = ['a="b"', 'n="', '__name__="X"', ",", '"', "\\", "{", "}", " ", "=", 'c="d,e"', ',__name__="Y"', "x"]
    taken = 0
    for _ in range(30_000):
        text = "".join(rng.choices(pieces, k=rng.randrange(2, 8)))
        without = without_name(text)
        taken += without != text
        assert outcome(without) == outcome(text), text
    assert taken > 500


@pytest.mark.capture
def test_the_labels_of_the_real_capture_agree_with_its_columns(real_capture: Path) -> None:
    with real_capture.open(newline="") as file:
        for row in csv.DictReader(file):
            columns, extras = split_labels(parse_labels(row["labels_raw"]))
            assert columns["uuid"] == row["uuid"]
            assert columns["gpu_id"] == row["gpu_id"]
            assert columns["hostname"] == row["Hostname"]
            assert columns["model_name"] == row["modelName"]
            assert extras == {"DCGM_FI_DRIVER_VERSION": "535.129.03"}
