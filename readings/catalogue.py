"""The catalogue of GPU metrics: what dcgm-exporter can give, under one name and one unit each.

Names are DCGM's own. Aliases are the names of other dcgm-exporter generations for the same value in the same unit; names that
also changed the unit are in readings.units, since what they mean depends on the source. Ranges are hard: no working GPU goes beyond them,
so a value outside is an error of measurement (wrong-field spikes, blanks), not an event.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

Kind = Literal["gauge", "counter", "event"]


class MetricInfo(NamedTuple):
    """One metric. ``unit`` is the unit as stored; ``low`` and ``high`` are inclusive, None where there is no bound."""

    name: str
    aliases: tuple[str, ...]
    title: str
    unit: str
    kind: Kind
    low: float | None
    high: float | None
    description: str


_DEV = "DCGM_FI_DEV_"
_PROF = "DCGM_FI_PROF_"
_EXP = "DCGM_EXP_"
_U32, _SAFE = 2.0**32, 2.0**53


def _clocks_and_power() -> Iterator[MetricInfo]:
    yield MetricInfo(
        _DEV + "SM_CLOCK",
        ("dcgm_sm_clock",),
        "SM clock",
        "MHz",
        "gauge",
        0,
        5_000,
        "Clock of the streaming multiprocessors.",
    )
    yield MetricInfo(
        _DEV + "MEM_CLOCK",
        ("dcgm_memory_clock",),
        "Memory clock",
        "MHz",
        "gauge",
        0,
        20_000,
        "Clock of the GPU memory.",
    )
    yield MetricInfo(
        _DEV + "MEMORY_TEMP",
        ("dcgm_memory_temp", _DEV + "MEMORY_TEMP_CELSIUS"),
        "Memory temperature",
        "°C",
        "gauge",
        1,
        130,
        "Temperature of the GPU memory. 0 is what GPUs without that sensor give, so it is no reading.",
    )
    yield MetricInfo(
        _DEV + "GPU_TEMP",
        ("dcgm_gpu_temp", _DEV + "GPU_TEMP_CELSIUS"),
        "GPU temperature",
        "°C",
        "gauge",
        0,
        130,
        "Temperature of the GPU core.",
    )
    yield MetricInfo(
        _DEV + "POWER_USAGE",
        ("dcgm_power_usage", _DEV + "BOARD_POWER_WATTS"),
        "Power draw",
        "W",
        "gauge",
        0,
        3_000,
        "Power of the whole board: every MIG instance of a board shows the same figure.",
    )
    yield MetricInfo(
        _DEV + "TOTAL_ENERGY_CONSUMPTION",
        ("dcgm_total_energy_consumption",),
        "Energy",
        "mJ",
        "counter",
        0,
        _SAFE,
        "Energy used since the driver was loaded; starts again at 0 with it.",
    )


def _utilisation() -> Iterator[MetricInfo]:
    yield MetricInfo(
        _DEV + "GPU_UTIL",
        ("dcgm_gpu_utilization",),
        "GPU utilisation",
        "%",
        "gauge",
        0,
        100,
        "Share of time in which any kernel ran. It says nothing of how much of the GPU that kernel used.",
    )
    yield MetricInfo(
        _DEV + "MEM_COPY_UTIL",
        ("dcgm_mem_copy_utilization",),
        "Memory bandwidth utilisation",
        "%",
        "gauge",
        0,
        100,
        "Share of time in which the memory was read or written: not how much memory is used.",
    )
    yield MetricInfo(
        _DEV + "ENC_UTIL",
        ("dcgm_enc_utilization",),
        "Encoder utilisation",
        "%",
        "gauge",
        0,
        100,
        "Load of the video encoder.",
    )
    yield MetricInfo(
        _DEV + "DEC_UTIL",
        ("dcgm_dec_utilization",),
        "Decoder utilisation",
        "%",
        "gauge",
        0,
        100,
        "Load of the video decoder.",
    )


def _memory() -> Iterator[MetricInfo]:
    yield MetricInfo(_DEV + "FB_TOTAL", (), "Memory total", "MiB", "gauge", 0, 2**20, "Size of the GPU memory.")
    yield MetricInfo(
        _DEV + "FB_FREE", ("dcgm_fb_free",), "Memory free", "MiB", "gauge", 0, 2**20, "GPU memory that is free."
    )
    yield MetricInfo(_DEV + "FB_USED", ("dcgm_fb_used",), "Memory used", "MiB", "gauge", 0, 2**20, "GPU memory in use.")
    yield MetricInfo(
        _DEV + "FB_RESERVED",
        (),
        "Memory reserved",
        "MiB",
        "gauge",
        0,
        2**20,
        "GPU memory that the driver and firmware keep.",
    )
    yield MetricInfo(
        _DEV + "FB_USED_PERCENT",
        (_DEV + "FB_USED_RATIO",),
        "Memory used, share",
        "ratio",
        "gauge",
        0,
        1,
        "Used memory as a share (0 to 1, in spite of its name) of total less reserved.",
    )


def _errors() -> Iterator[MetricInfo]:
    yield MetricInfo(
        _DEV + "XID_ERRORS",
        ("dcgm_xid_errors", _DEV + "XID_ERROR"),
        "Last XID error",
        "code",
        "event",
        0,
        1_023,
        "Code of the last XID error; stays until the next one. 0 is none, and no row is not the same as none.",
    )
    for part, scope in (("VOL", "volatile"), ("AGG", "aggregate")):
        for bits, word in (("SBE", "single-bit"), ("DBE", "double-bit")):
            span = "since the last reset" if part == "VOL" else "over the GPU's life"
            yield MetricInfo(
                f"{_DEV}ECC_{bits}_{part}_TOTAL",
                (f"dcgm_ecc_{bits.lower()}_{scope}_total",),
                f"ECC {word} errors, {scope}",
                "count",
                "counter",
                0,
                _U32,
                f"ECC {word} errors {span}.",
            )
    for bits, word in (("SBE", "single-bit"), ("DBE", "double-bit")):
        yield MetricInfo(
            f"{_DEV}RETIRED_{bits}",
            (f"dcgm_retired_pages_{bits.lower()}", f"{_DEV}PAGE_RETIRED_{bits}_TOTAL"),
            f"Pages retired, {word}",
            "count",
            "counter",
            0,
            10_000,
            f"Memory pages retired for {word} errors.",
        )
    yield MetricInfo(
        _DEV + "RETIRED_PENDING",
        ("dcgm_retired_pages_pending", _DEV + "PAGE_RETIRED_PENDING"),
        "Pages to retire",
        "count",
        "gauge",
        0,
        10_000,
        "Memory pages that wait for the next reset to be retired.",
    )
    for word in ("UNCORRECTABLE", "CORRECTABLE"):
        yield MetricInfo(
            f"{_DEV}{word}_REMAPPED_ROWS",
            (f"{_DEV}ROW_REMAP_{word}_TOTAL",),
            f"Rows remapped, {word.lower()}",
            "count",
            "counter",
            0,
            10_000,
            f"Memory rows remapped for {word.lower()} errors.",
        )
    yield MetricInfo(
        _DEV + "ROW_REMAP_FAILURE",
        (_DEV + "ROW_REMAP_FAILED",),
        "Row remap failed",
        "bool",
        "gauge",
        0,
        1,
        "1 when remapping of rows has failed: the GPU is to be replaced.",
    )


def _throttling() -> Iterator[MetricInfo]:
    for part, cause in (
        ("POWER", "power limits"),
        ("THERMAL", "thermal limits"),
        ("SYNC_BOOST", "sync boost"),
        ("BOARD_LIMIT", "board limits"),
        ("LOW_UTIL", "low utilisation"),
        ("RELIABILITY", "reliability limits"),
    ):
        yield MetricInfo(
            f"{_DEV}{part}_VIOLATION",
            (f"dcgm_{part.lower()}_violation",),
            f"Throttled by {cause}",
            "ns",
            "counter",
            0,
            None,
            f"Time in which clocks were held down by {cause}.",
        )


def _links() -> Iterator[MetricInfo]:
    for way, word in (("TX", "sent"), ("RX", "received")):
        yield MetricInfo(
            f"{_DEV}PCIE_{way}_THROUGHPUT",
            (f"dcgm_pcie_{way.lower()}_throughput",),
            f"PCIe {word} (NVML)",
            "KB/s",
            "gauge",
            0,
            1e9,
            f"Data {word} over PCIe, as NVML samples it. A rate, though exporters call it a counter.",
        )
    yield MetricInfo(
        _DEV + "PCIE_REPLAY_COUNTER",
        ("dcgm_pcie_replay_counter", _DEV + "PCIE_REPLAY_TOTAL"),
        "PCIe replays",
        "count",
        "counter",
        0,
        _U32,
        "Transfers over PCIe that had to be repeated.",
    )
    for part, old, word in (
        ("CRC_FLIT", "flit_crc", "flow-control CRC errors"),
        ("CRC_DATA", "data_crc", "data CRC errors"),
        ("REPLAY", "replay", "replays"),
        ("RECOVERY", "recovery", "recoveries"),
    ):
        yield MetricInfo(
            f"{_DEV}NVLINK_{part}_ERROR_COUNT_TOTAL",
            (f"dcgm_nvlink_{old}_error_count_total", f"{_DEV}NVLINK_{part}_ERROR_TOTAL"),
            f"NVLink {word}",
            "count",
            "counter",
            0,
            _SAFE,
            f"NVLink {word}, all lanes.",
        )
    yield MetricInfo(
        _DEV + "NVLINK_BANDWIDTH_TOTAL",
        ("dcgm_nvlink_bandwidth_total",),
        "NVLink throughput",
        "MB/s",
        "gauge",
        0,
        None,
        "Data over all NVLink lanes. A rate, though exporters call it a counter.",
    )
    yield MetricInfo(
        _DEV + "VGPU_LICENSE_STATUS", (), "vGPU licensed", "bool", "gauge", 0, 1, "1 when a vGPU licence is held."
    )


def _profiling() -> Iterator[MetricInfo]:
    for part, new, title, description in (
        (
            "GR_ENGINE_ACTIVE",
            "GR_ENGINE_UTIL",
            "Engine active",
            "Share of time in which the graphics or compute engine was active; the utilisation to use on MIG.",
        ),
        (
            "SM_ACTIVE",
            "SM_UTIL",
            "SM active",
            "Share of cycles in which an SM had a warp, mean over all SMs: whether the GPU really works.",
        ),
        ("SM_OCCUPANCY", "SM_OCCUPANCY", "SM occupancy", "Resident warps as a share of what the SMs can hold."),
        (
            "PIPE_TENSOR_ACTIVE",
            "TENSOR_UTIL",
            "Tensor pipe active",
            "Share of cycles in which the tensor pipe was active.",
        ),
        (
            "DRAM_ACTIVE",
            "DRAM_UTIL",
            "Memory interface active",
            "Share of cycles in which the memory interface sent or received.",
        ),
        ("PIPE_FP64_ACTIVE", "FP64_UTIL", "FP64 pipe active", "Share of cycles in which the FP64 pipe was active."),
        ("PIPE_FP32_ACTIVE", "FP32_UTIL", "FP32 pipe active", "Share of cycles in which the FP32 pipe was active."),
        ("PIPE_FP16_ACTIVE", "FP16_UTIL", "FP16 pipe active", "Share of cycles in which the FP16 pipe was active."),
    ):
        # 1.01: the hardware counters overshoot a little.
        aliases = (f"dcgm_fi_prof_{part.lower()}", f"{_PROF}{new}_RATIO")
        yield MetricInfo(_PROF + part, aliases, title, "ratio", "gauge", 0, 1.01, description)
    for way, word in (("TX", "sent"), ("RX", "received")):
        yield MetricInfo(
            f"{_PROF}PCIE_{way}_BYTES",
            (f"dcgm_fi_prof_pcie_{way.lower()}_bytes",),
            f"PCIe {word}",
            "B/s",
            "gauge",
            0,
            1e12,
            f"Data {word} over PCIe, with protocol headers.",
        )


def _exporter() -> Iterator[MetricInfo]:
    yield MetricInfo(
        _EXP + "XID_ERRORS_COUNT",
        (),
        "XID errors in window",
        "count",
        "gauge",
        0,
        None,
        "XID errors in the exporter's window (its label window_size_in_ms); falls again, though exporters call it a counter.",
    )
    yield MetricInfo(
        _EXP + "CLOCK_EVENTS_COUNT",
        (),
        "Clock events in window",
        "count",
        "gauge",
        0,
        None,
        "Clock events in the exporter's window (its label window_size_in_ms); falls again, though exporters call it a counter.",
    )
    for part, word in (("XID_ERRORS", "XID errors"), ("CLOCK_EVENTS", "Clock events")):
        yield MetricInfo(
            f"{_EXP}{part}_TOTAL",
            (),
            f"{word} in all",
            "count",
            "counter",
            0,
            None,
            f"{word} since the exporter was started.",
        )
    yield MetricInfo(
        _EXP + "GPU_HEALTH_STATUS",
        (),
        "DCGM health",
        "state",
        "gauge",
        0,
        20,
        "DCGM's health watch: 0 pass, 10 warning, 20 failure.",
    )


_PARTS = (_clocks_and_power, _utilisation, _memory, _errors, _throttling, _links, _profiling, _exporter)

CATALOGUE: Mapping[str, MetricInfo] = MappingProxyType({metric.name: metric for part in _PARTS for metric in part()})

_CANONICAL = {alias: metric.name for metric in CATALOGUE.values() for alias in (metric.name, *metric.aliases)}


_COUNTERS = frozenset(metric.name for metric in CATALOGUE.values() if metric.kind == "counter")

# What a GPU has several of: the labels that tell which one a row is of.
PART_LABELS = ("nvlink", "xid", "clock_event", "health_watch")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_.-]+")


def canonical_name(name: str) -> str:
    """The one name of a metric: trimmed, aliases folded. A name that is not in the catalogue is its own."""
    known = _CANONICAL.get(name)
    if known is not None:
        return known
    trimmed = name.strip()
    known = _CANONICAL.get(trimmed)
    if known is None and ":" in trimmed:
        whole, colon, part = trimmed.partition(":")
        return _CANONICAL.get(whole, whole) + colon + part
    return trimmed if known is None else known


def name_of_part(name: str, labels: Mapping[str, str]) -> str:
    """The metric's name for one of the several things of its kind that a GPU has: ``NAME:nvlink:3``.

    Without it the rows of a GPU's links, XIDs and clock events would be one series with many values at one time.
    """
    for label in PART_LABELS:
        value = labels.get(label)
        if value:
            name = f"{name}:{label}:{_NOT_PLAIN.sub('_', value)}"
    return name


def whole_of(name: str) -> str:
    """The metric that a name of a part belongs to; any other name itself."""
    return name.partition(":")[0]


def info(name: str) -> MetricInfo | None:
    """What is known of a metric, by its name, an alias or that of a part; None for a metric that is not in the catalogue."""
    return CATALOGUE.get(whole_of(canonical_name(name)))


def is_counter(name: str) -> bool:
    """Whether a stored metric, or its part, only grows until its GPU or driver starts again."""
    return name in _COUNTERS or (":" in name and whole_of(name) in _COUNTERS)


def unit_of(name: str) -> str:
    """The unit its values are stored in, or an empty string when that is not known."""
    known = info(name)
    return known.unit if known else ""
