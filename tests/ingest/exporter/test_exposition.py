from __future__ import annotations

import pytest

from ingest.exporter.exposition import Exposition, NotMetrics, Scraped

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
    ],
)
def test_times_exemplars_and_blanks_are_understood(line: str, value: float, time_ns: int) -> None:
    scraped = read(line)
    assert values(scraped) == [(UTIL, value, time_ns)]
    assert scraped.refused == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('DCGM_FI_DEV_VGPU_INSTANCE_IDS{gpu="0",UUID="GPU-1"} ERROR - FAILED TO CONVERT TO STRING', "not_available"),
        (f"{UTIL}{{{GPU}}} NaN", "non_finite"),
        (f"{UTIL}{{{GPU}}} 9223372036854775794", "blank"),
        (f"{UTIL}{{{GPU}}}", "bad_field"),
        (f"{UTIL}{{{GPU}}} 1 -5", "bad_timestamp"),
        (f'{UTIL}{{{GPU},hpc_job="job"1"}} 4', "bad_field"),
        (f"{UTIL}{{{GPU}", "bad_field"),
        ('DCGM_FI_DEV_CPU_UTIL_TOTAL{cpu="0"} 12', "no_identity"),
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
    for labels in ('UUID="GPU-1"', 'UUID="GPU-1",Hostname="localhost"'):
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
    assert len(exporter._series) == len(exporter._gpus) == 2


def test_what_stays_is_not_learnt_again_when_the_rest_is_forgotten() -> None:
    exporter = Exposition()
    gpus = set()
    for number in range(300):
        page = f'{UTIL}{{{GPU},pod="p{number}"}} 1\n{TEMP}{{{GPU}}} 50\n'
        gpus.add(id(exporter.read(page, NOW).samples[1].gpu))
    assert len(gpus) == 1
