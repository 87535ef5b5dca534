from __future__ import annotations

import pytest

from ingest.exporter.exposition import Exposition, NotMetrics, Scraped
from ingest.parts import Parts

NOW = 1_752_871_360_000_000_000
GPU = 'gpu="0",UUID="GPU-1",device="nvidia0",modelName="NVIDIA H100 80GB HBM3",Hostname="h1",DCGM_FI_DRIVER_VERSION="535.129.03"'
UTIL, TEMP = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP"


def read(body: str, host: str = "") -> Scraped:
    return Exposition(host).read(body, NOW)


def values(scraped: Scraped) -> list[tuple[str, float, int]]:
    return [(sample.metric_name, sample.value, sample.time_ns) for sample in scraped.samples]


def test_a_page_becomes_readings_of_the_gpus_it_tells_of() -> None:
    scraped = read(
        f"# HELP {UTIL} GPU utilization (in %).\n# TYPE {UTIL} gauge\n{UTIL}{{{GPU}}} 87\n{TEMP}{{{GPU}}} 55\n"
    )
    assert values(scraped) == [(UTIL, 87.0, NOW), (TEMP, 55.0, NOW)]
    first, second = (sample.gpu for sample in scraped.samples)
    assert first is second
    assert (first.uuid, first.hostname, first.gpu_id, first.driver_version) == ("GPU-1", "h1", 0, "535.129.03")


@pytest.mark.parametrize(
    ("line", "value", "time_ns"),
    [
        (f"{UTIL}{{{GPU}}} 87 1752871354000", 87.0, 1_752_871_354_000_000_000),
        (f"{UTIL}{{{GPU}}} 87 1752871354.5", 87.0, 1_752_871_354_500_000_000),
        (f'{UTIL}{{{GPU}}} 87 # {{trace_id="x"}} 1.0', 87.0, NOW),
        (f'{UTIL}{{{GPU}}} 87 1752871354 # {{trace_id="x"}} 1.0 1752871354', 87.0, 1_752_871_354_000_000_000),
        (f"{UTIL}{{{GPU},}}\t 87", 87.0, NOW),
        (f"{UTIL} {{{GPU}}} 8.7e1\r", 87.0, NOW),
        (f'{UTIL}{{{GPU},hpc="a # {{b}} c"}} 87', 87.0, NOW),
        (f'{{"{UTIL}",{GPU}}} 87', 87.0, NOW),
    ],
)
def test_times_exemplars_and_blanks_are_understood(line: str, value: float, time_ns: int) -> None:
    scraped = read(line)
    assert values(scraped) == [(UTIL, value, time_ns)]
    assert scraped.refused == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"{UTIL}{{{GPU}}} N/A", "not_available"),
        (f"{UTIL}{{{GPU}}} NaN", "non_finite"),
        (f"{UTIL}{{{GPU}}} 9223372036854775794", "blank"),
        (f"{UTIL}{{{GPU}}}", "bad_field"),
        (f"{UTIL}{{{GPU}}} 1 -5", "bad_timestamp"),
        (f"{UTIL}{{{GPU}", "bad_field"),
        ('DCGM_FI_DEV_GPU_UTIL{gpu="0",cpu="0"} 12', "no_identity"),
        ("what is this", "bad_field"),
        ("9lives 1", "bad_field"),
        ("lives 1_0", "bad_field"),
        (f'{UTIL}{{gpu="0",UUID="{"x" * 200}"}} 1', "bad_field"),
    ],
)
def test_a_bad_line_costs_that_line_alone(line: str, reason: str) -> None:
    exporter = Exposition()
    for _ in range(2):  # the second time from what the first has learnt
        scraped = exporter.read(f"{TEMP}{{{GPU}}} 55\n{line}\n{UTIL}{{{GPU}}} 7", NOW)
        assert [(name, value) for name, value, _ in values(scraped)] == [(TEMP, 55.0), (UTIL, 7.0)]
        assert [(row.line, row.reason) for row in scraped.refused] == [(2, reason)]
        assert scraped.counts == {reason: 1}


def test_what_an_exporter_tells_of_itself_is_passed_over() -> None:
    scraped = read(f'go_goroutines 12\nprocess_x{{q="0.5"}} NaN\ndcgm_exporter_up 1\n{UTIL}{{{GPU}}} 7\n# EOF\n')
    assert len(scraped.samples) == 1
    assert scraped.refused == []


@pytest.mark.parametrize("body", ["", "\n \n", "<!DOCTYPE html><html>404</html>", '{"a": 1}', "one two three\n" * 50])
def test_what_is_no_metrics_is_a_failed_scrape(body: str) -> None:
    with pytest.raises(NotMetrics):
        read(body)


def test_a_host_that_is_not_told_is_that_of_the_exporter() -> None:
    for labels in ('UUID="GPU-1"', 'UUID="GPU-1",Hostname="localhost"', 'UUID="GPU-1",instance="127.0.0.1:9400"'):
        assert read(f"{UTIL}{{{labels}}} 1", host="node-7").samples[0].gpu.hostname == "node-7"
    assert read(f'{UTIL}{{UUID="GPU-1",hostname="a",Hostname="b"}} 1', host="node-7").samples[0].gpu.hostname == "a"


def test_exported_labels_are_the_workload() -> None:
    labels = (
        'UUID="GPU-1",pod="dcgm-exporter-6ldbb",namespace="gpu-operator",exported_pod="train-0",exported_namespace="ml"'
    )
    gpu = read(f"{UTIL}{{{labels}}} 1").samples[0].gpu
    assert (gpu.pod, gpu.namespace) == ("train-0", "ml")


def test_links_and_events_of_a_gpu_are_series_of_their_own() -> None:
    scraped = read(
        "".join(f'DCGM_FI_DEV_NVLINK_REPLAY_ERROR_TOTAL{{gpu_uuid="GPU-1",nvlink="{n}"}} {n}\n' for n in range(3))
    )
    assert [name for name, _, _ in values(scraped)] == [
        f"DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL:nvlink:{n}" for n in range(3)
    ]
    assert len({id(sample.gpu) for sample in scraped.samples}) == 1


def test_an_exporter_that_is_upgraded_is_understood_anew() -> None:
    exporter = Exposition()
    name = "DCGM_FI_DEV_GPU_UTIL_RATIO"
    old = exporter.read(f'{name}{{UUID="GPU-1",DCGM_FI_DRIVER_VERSION="5"}} 1', NOW)
    new = exporter.read(f'{name}{{UUID="GPU-1",DCGM_FI_SYSTEM_DRIVER_VERSION="5"}} 1', NOW)
    assert [each.samples[0].value for each in (old, new)] == [1.0, 100.0]
    assert {each.samples[0].metric_name for each in (old, new)} == {UTIL}
    assert old.samples[0].gpu == new.samples[0].gpu


def test_memory_stays_bounded_while_labels_come_and_go() -> None:
    exporter = Exposition()
    for number in range(5000):
        page = f'{UTIL}{{{GPU},pod="p{number}"}} 1\n{TEMP}{{{GPU}}} 50\n'
        assert len(exporter.read(page, NOW).samples) == 2
    assert len(exporter._series) == len(exporter._described) == 2


def test_what_stays_is_not_learnt_again_when_the_rest_is_forgotten() -> None:
    exporter = Exposition()
    gpus = set()
    for number in range(300):
        page = f'{UTIL}{{{GPU},pod="p{number}"}} 1\n{TEMP}{{{GPU}}} 50\n'
        gpus.add(id(exporter.read(page, NOW).samples[1].gpu))
    assert len(gpus) == 1


ZEROS = "00000000-0000-0000-0000-000000000000"
P2P = "DCGM_EXP_P2P_STATUS"


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        (f'{UTIL}{{{GPU},gpu="true",pod="p"}} 5', {"repeated_label": 1}),
        (f'{UTIL}{{{GPU},hpc_job="job"1"}} 5', {"bad_label": 1}),
        (f'{UTIL}{{{GPU},note="cut}} 5', {"bad_label": 1}),
        (f"{UTIL}{{{GPU},labels}} 5", {"bad_label": 1}),
        (f"{UTIL}{{{GPU},version=535}} 5", {"bad_label": 1}),
        (f'{UTIL}{{{GPU},long="{"x" * 5000}"}} 5', {"bad_label": 1}),
        (f'{UTIL}{{{GPU},nul="\0"}} 5', {"bad_label": 1}),
        (f"{UTIL}{{{GPU},{','.join(f'l{n}=' + chr(34) * 2 + '' for n in range(300))}}} 5", {}),
        (f"{UTIL}{{{GPU},{','.join(f'l{n}={chr(34)}x{chr(34)}' for n in range(300))}}} 5", {"too_many_labels": 1}),
        (f'{UTIL}{{{GPU},bad="\\q",emoji="🔥",bidi="\u202e",line="a\u2028b"}} 5', {}),
        (f"{UTIL}{{{GPU},}}5", {}),
        (f"        {UTIL}{{{GPU}}}\t5\r", {}),
        (f"\ufeff{UTIL}{{{GPU}}} 5", {}),
    ],
)
def test_what_a_reading_does_not_need_refuses_nothing(line: str, counts: dict[str, int]) -> None:
    exporter = Exposition()
    for first in (True, False):
        scraped = exporter.read(line + "\n" + line.replace(UTIL, TEMP), NOW)
        assert [(name, value) for name, value, _ in values(scraped)] == [(UTIL, 5.0), (TEMP, 5.0)]
        assert scraped.samples[0].gpu.gpu_id == 0
        assert (scraped.refused, scraped.counts) == ([], {reason: 2 * count for reason, count in counts.items()})
        assert [remark.reason for remark in scraped.remarks] == (list(counts) if first else [])  # each is said once


def test_an_indented_page_is_read_each_time() -> None:
    page = "".join(f"        {line}\n" for line in ("# HELP x y", f"{UTIL}{{{GPU}}} 5", "", "go_goroutines 7"))
    exporter = Exposition()
    for _ in range(2):
        assert values(exporter.read(page, NOW)) == [(UTIL, 5.0, NOW)]


def test_a_line_that_is_too_long_is_refused_by_itself() -> None:
    scraped = read(f'{UTIL}{{{GPU},long="{"x" * 70_000}"}} 5\n{TEMP}{{{GPU}}} 50')
    assert [name for name, _, _ in values(scraped)] == [TEMP]
    assert scraped.counts == {"bad_field": 1}
    assert "at most 65536 are read" in scraped.refused[0].detail
    assert len(scraped.refused[0].raw) == 4096


def test_bad_lines_are_kept_up_to_a_number_and_counted_all() -> None:
    scraped = read("".join(f'{UTIL}{{gpu="0",UUID="GPU-{n}"}} NaN\n' for n in range(3000)))
    assert (len(scraped.refused), scraped.counts) == (1000, {"non_finite": 3000})


@pytest.mark.parametrize("uuid", ["", ZEROS, "GPU-" + ZEROS, "N/A"])
@pytest.mark.parametrize("name", [UTIL, "amd_gpu_gfx_activity"])
def test_a_blank_identity_is_none(name: str, uuid: str) -> None:
    scraped = read(
        "".join(f'{name}{{gpu_uuid="{uuid}",gpu_id="{n}",hostname="vm{n % 2}"}} {n}\n' for n in range(3))
        + f"{TEMP}{{{GPU}}} 5"
    )
    assert len(scraped.samples) == 1
    assert scraped.counts == {"no_identity": 3}


def test_rows_of_cpus_and_switches_are_passed_over() -> None:
    rows = [f'DCGM_FI_DEV_CPU_UTIL_TOTAL{{cpu="0",cpucore="{n}",Hostname="h"}} 1' for n in range(70)]
    scraped = read("\n".join([*rows, 'DCGM_FI_DEV_NVSWITCH_X{nvswitch="1",nvlink="2"} 5', f"{UTIL}{{{GPU}}} 5"]))
    assert (len(scraped.samples), scraped.refused, scraped.counts) == (1, [], {"not_a_gpu": 71})


def test_rows_of_anything_else_are_passed_over_and_those_of_gpus_need_an_identity() -> None:
    others = [
        'DCGM_FI_DEV_IB_X{ibdev="mlx5_0",Hostname="h"} 5',
        'DCGM_FI_BUILD_INFO{version="4.9"} 1',
        'dcgm_x{c="y"} 1',
    ]
    scraped = read("\n".join([*others, f"{UTIL}{{{GPU}}} 5"]))
    assert (len(scraped.samples), scraped.counts) == (1, {"not_a_gpu": 3})
    lost = [f'{UTIL}{{Hostname="h"}} 5', 'DCGM_FI_DEV_NEW{device="nvidia0"} 5', 'DCGM_FI_DEV_NEW{gpu="0"} 5']
    assert read("\n".join(lost)).counts == {"no_identity": 3}


def test_a_metric_that_is_no_number_is_not_supported_and_told_once() -> None:
    exporter = Exposition()
    page = f"DCGM_FI_DEV_VGPU_INSTANCE_IDS{{{GPU}}} ERROR - FAILED TO CONVERT TO STRING\n{UTIL}{{{GPU}}} 5\n"
    first, second = exporter.read(page, NOW), exporter.read(page, NOW)
    assert first.counts == second.counts == {"not_supported": 1}
    assert (first.refused, len(first.unsupported), second.unsupported) == ([], 1, [])


def peers(*numbers: int, **more: str) -> str:
    rest = "".join(f',{name}="{value}"' for name, value in more.items())
    return "".join(
        f'{P2P}{{{GPU},peer_gpu="{n}",link_status="{"OK" if n > 1 else "BAD"}"{rest}}} {n}\n' for n in numbers
    )


def test_a_known_part_is_always_in_the_name_and_what_varies_with_it_is_no_label_of_the_gpu() -> None:
    for numbers in ((1,), (1, 2, 3)):
        scraped = read(peers(*numbers) + f"{UTIL}{{{GPU}}} 5")
        assert {name: value for name, value, _ in values(scraped)} == {
            **{f"{P2P}:peer_gpu:{n}": float(n) for n in numbers},
            UTIL: 5.0,
        }
        assert {tuple(sample.gpu.labels) for sample in scraped.samples} == {("DCGM_FI_DRIVER_VERSION",)}


def lanes(*numbers: int, name: str = "my_metric") -> str:
    return "".join(f'{name}{{{GPU},lane="{n}"}} {n}\n' for n in numbers)


def test_an_unknown_part_is_found_in_the_scrape_and_kept_for_its_metric() -> None:
    exporter = Exposition()

    def names(body: str) -> list[str]:
        return [name for name, _, _ in values(exporter.read(body, NOW))]

    assert names(lanes(0) + lanes(0, name="other")) == ["my_metric", "other"]  # nothing to tell apart yet
    assert names(lanes(0, 1) + lanes(0, name="other")) == ["my_metric:lane:0", "my_metric:lane:1", "other"]
    assert names(lanes(0) + lanes(0, name="other")) == ["my_metric:lane:0", "other"]
    assert names(lanes(1)) == ["my_metric:lane:1"]


def test_exporters_of_one_streamer_share_what_was_found() -> None:
    parts = Parts()
    first, second = Exposition("a", parts), Exposition("b", parts)
    assert second.read(lanes(0), NOW).samples[0].metric_name == "my_metric"
    first.read(lanes(0, 1), NOW)
    assert second.read(lanes(0), NOW).samples[0].metric_name == "my_metric:lane:0"


def test_rows_of_different_owners_are_shares_and_no_parts() -> None:
    rows = "".join(f'{UTIL}{{{GPU},pod="p{n}",namespace="n",vgpu="{n}"}} 5\n' for n in range(3))
    scraped = read(rows)
    assert {name for name, _, _ in values(scraped)} == {UTIL}
    assert (len(scraped.samples), scraped.counts) == (3, {})


@pytest.mark.parametrize("label", ["DCGM_FI_DRIVER_VERSION2", "fw_version", "instance", "job", "node", "device"])
def test_of_rows_that_only_a_source_or_a_version_tells_apart_one_is_refused(label: str) -> None:
    told = GPU.replace("DCGM_FI_DRIVER_VERSION", "x_version").replace('device="nvidia0",', "")
    exporter = Exposition()
    for _ in range(2):
        scraped = exporter.read(f'{UTIL}{{{told},{label}="a"}} 1\n{UTIL}{{{told},{label}="b"}} 2\n', NOW)
        assert values(scraped) == [(UTIL, 1.0, NOW)]
        assert [(row.line, row.reason) for row in scraped.refused] == [(2, "duplicate_row")]


def test_a_line_that_is_there_twice_counts_once_and_is_refused_where_it_contradicts_itself() -> None:
    line = f"{UTIL}{{{GPU}}} "
    exporter = Exposition()
    for _ in range(2):
        assert exporter.read(f"{line}5\n{line}5\n", NOW).counts == {}
        scraped = exporter.read(f"{line}5\n{line}6\n{TEMP}{{{GPU}}} 5\n", NOW)
        assert [(name, value) for name, value, _ in values(scraped)] == [(UTIL, 5.0), (TEMP, 5.0)]
        assert scraped.counts == {"duplicate_row": 1}
        timed = exporter.read(f"{line}5 1752871354000\n{line}6 1752871355000\n", NOW)
        assert [value for _, value, _ in values(timed)] == [5.0, 6.0]
        assert timed.counts == {}


def test_parts_without_end_are_refused_from_some_number_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.samples.MOST_PARTS", 10)
    exporter = Exposition()
    exporter.read(lanes(0, 1), NOW)
    found = [exporter.read(lanes(number), NOW) for number in range(2, 20)]
    assert sum(len(each.samples) for each in found) == 8
    assert {reason for each in found for reason in each.counts} == {"too_many_parts"}
    assert len(exporter.read(lanes(0, 1, 2), NOW).samples) == 3  # the known ones go on


def test_a_host_through_a_prometheus_is_that_of_the_row_and_an_exporters_own_comes_first() -> None:
    row = 'UUID="GPU-1",instance="10.4.0.11:9400",kubernetes_node="k1"'
    assert read(f"{UTIL}{{{row}}} 1", host="prometheus").samples[0].gpu.hostname == "10.4.0.11"
    assert read(f'{UTIL}{{{row},Hostname="h"}} 1', host="prometheus").samples[0].gpu.hostname == "h"
    assert read(f'{UTIL}{{UUID="GPU-1",kubernetes_node="k1"}} 1', host="prometheus").samples[0].gpu.hostname == "k1"


def test_the_gpus_of_each_answer_are_counted() -> None:
    line = UTIL + '{{UUID="GPU-{}",GPU_I_ID="{}"}} 5\n'
    both = line.format(1, 0) + line.format(1, 1) + line.format(2, 0)
    exporter = Exposition()
    pages = (both, both, line.format(1, 0), "# HELP x y\n", both, "dcgm_exporter_up 1\n")
    assert [exporter.read(page, NOW).gpus for page in pages] == [2, 2, 1, 0, 2, 0]


def shares(*values: int) -> str:
    return "".join(f'{UTIL}{{{GPU},pod="p",namespace="n",vgpu="{n}",pid="{n}"}} {v}\n' for n, v in enumerate(values))


def test_owners_in_one_pod_may_repeat_the_gpus_value_and_of_other_values_the_first_is_taken() -> None:
    exporter = Exposition()
    for _ in range(2):
        assert exporter.read(shares(5, 5, 5), NOW).counts == {}
        scraped = exporter.read(shares(5, 6, 5), NOW)
        assert [value for _, value, _ in values(scraped)] == [5.0, 5.0]
        assert [(row.line, row.reason) for row in scraped.refused] == [(2, "duplicate_row")]


def test_rows_of_two_sources_with_times_of_their_own_are_two_readings() -> None:
    """As when a Prometheus still has the series of an exporter that has just got another address."""
    rows = [f'{UTIL}{{UUID="GPU-1",instance="10.0.0.{n}:9400"}} {n} 175287135{n}000\n' for n in (1, 2)]
    scraped = read("".join(rows))
    assert [value for _, value, _ in values(scraped)] == [1.0, 2.0]
    assert scraped.counts == {}
    assert read("".join(rows).replace("1752871352000", "1752871351000")).counts == {"duplicate_row": 1}
