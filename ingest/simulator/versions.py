"""How each generation of dcgm-exporter writes our metrics: names, units, help, types and labels. For fake exporters and tests.

1.x     dcgm_gpu_utilization, uuid and pod_name as labels, no host name, nothing else of the GPU
4.5     DCGM_FI_DEV_GPU_UTIL, Hostname
4.6     the aliases of DCGM 4.6, with the old units
4.8.3   as 4.5, with hostname in lower case
4.9     new names in base units (Hz, bytes, joules, ratios, seconds), and another label for the driver's version
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from readings.catalogue import CATALOGUE
from readings.model import Gpu

GENERATIONS = ("1.x", "4.5", "4.6", "4.8.3", "4.9")
_DEV = "DCGM_FI_DEV_"


class Written(NamedTuple):
    """A metric as one generation writes it."""

    name: str
    kind: str
    help: str
    scale: Callable[[float], float] | None = None


def _times(factor: float) -> Callable[[float], float]:
    return lambda value: round(value * factor, 6)


# Why a GPU is throttled: the word in the metric's canonical name, in its name in base units, and in its help.
_THROTTLING = (
    ("POWER", "POWER", "power constraints"),
    ("THERMAL", "THERMAL", "thermal constraints"),
    ("SYNC_BOOST", "SYNC_BOOST", "sync-boost constraints"),
    ("BOARD_LIMIT", "LIMIT", "board limit constraints"),
    ("LOW_UTIL", "LOW_UTIL", "low utilization"),
    ("RELIABILITY", "RELIABILITY", "reliability constraints"),
)
# Canonical name -> name in base units, factor from the stored unit, help.
_BASE = {
    _DEV + "SM_CLOCK": ("SM_CLOCK_HERTZ", 1e6, "SM clock frequency (in Hz)."),
    _DEV + "MEM_CLOCK": ("MEMORY_CLOCK_HERTZ", 1e6, "Memory clock frequency (in Hz)."),
    _DEV + "TOTAL_ENERGY_CONSUMPTION": ("GPU_ENERGY_JOULES_TOTAL", 1e-3, "Total energy since boot (in J)."),
    _DEV + "GPU_UTIL": ("GPU_UTIL_RATIO", 1e-2, "GPU utilization ratio (0-1)."),
    _DEV + "MEM_COPY_UTIL": ("MEMORY_UTIL_RATIO", 1e-2, "Memory utilization ratio (0-1)."),
    _DEV + "ENC_UTIL": ("ENC_UTIL_RATIO", 1e-2, "Encoder utilization ratio (0-1)."),
    _DEV + "DEC_UTIL": ("DEC_UTIL_RATIO", 1e-2, "Decoder utilization ratio (0-1)."),
    _DEV + "FB_TOTAL": ("FB_CAPACITY_BYTES", 1048576, "Framebuffer memory capacity (in bytes)."),
    _DEV + "FB_FREE": ("FB_FREE_BYTES", 1048576, "Framebuffer memory free (in bytes)."),
    _DEV + "FB_USED": ("FB_USED_BYTES", 1048576, "Framebuffer memory used (in bytes)."),
    _DEV + "FB_RESERVED": ("FB_RESERVED_BYTES", 1048576, "Framebuffer memory reserved (in bytes)."),
    _DEV + "NVLINK_BANDWIDTH_TOTAL": ("NVLINK_THROUGHPUT_TOTAL", 1e6, "NVLink throughput (in bytes/s)."),
    **{
        f"{_DEV}{old}_VIOLATION": (
            f"GPU_{new}_THROTTLE_SECONDS_TOTAL",
            1e-9,
            f"Throttling duration due to {why} (in s).",
        )
        for old, new, why in _THROTTLING
    },
}
# The exporters' own # HELP texts before 4.9: readers may take the unit from the wording.
_HELP = {
    _DEV + "SM_CLOCK": "SM clock frequency (in MHz).",
    _DEV + "MEM_CLOCK": "Memory clock frequency (in MHz).",
    _DEV + "MEMORY_TEMP": "Memory temperature (in C).",
    _DEV + "GPU_TEMP": "GPU temperature (in C).",
    _DEV + "POWER_USAGE": "Power draw (in W).",
    _DEV + "TOTAL_ENERGY_CONSUMPTION": "Total energy consumption since boot (in mJ).",
    _DEV + "PCIE_TX_THROUGHPUT": "Total number of bytes transmitted through PCIe TX (in KB) via NVML.",
    _DEV + "PCIE_RX_THROUGHPUT": "Total number of bytes received through PCIe RX (in KB) via NVML.",
    _DEV + "PCIE_REPLAY_COUNTER": "Total number of PCIe retries.",
    _DEV + "GPU_UTIL": "GPU utilization (in %).",
    _DEV + "MEM_COPY_UTIL": "Memory utilization (in %).",
    _DEV + "ENC_UTIL": "Encoder utilization (in %).",
    _DEV + "DEC_UTIL": "Decoder utilization (in %).",
    _DEV + "XID_ERRORS": "Value of the last XID error encountered.",
    _DEV + "FB_FREE": "Framebuffer memory free (in MiB).",
    _DEV + "FB_USED": "Framebuffer memory used (in MiB).",
    _DEV + "FB_RESERVED": "Framebuffer memory reserved (in MiB).",
    _DEV + "NVLINK_BANDWIDTH_TOTAL": "Total number of NVLink bandwidth counters for all lanes.",
    _DEV + "VGPU_LICENSE_STATUS": "vGPU License status",
    _DEV + "UNCORRECTABLE_REMAPPED_ROWS": "Number of remapped rows for uncorrectable errors",
    _DEV + "CORRECTABLE_REMAPPED_ROWS": "Number of remapped rows for correctable errors",
    _DEV + "ROW_REMAP_FAILURE": "Whether remapping of rows has failed",
    # The help said microseconds until a late 4.x; the values were always nanoseconds.
    **{f"{_DEV}{part}_VIOLATION": f"Throttling duration due to {why} (in us)." for part, _, why in _THROTTLING},
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": "Ratio of time the graphics engine is active.",
    "DCGM_FI_PROF_SM_ACTIVE": "The ratio of cycles an SM has at least 1 warp assigned.",
    "DCGM_FI_PROF_SM_OCCUPANCY": "The ratio of number of warps resident on an SM.",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": "Ratio of cycles the tensor (HMMA) pipe is active.",
    "DCGM_FI_PROF_DRAM_ACTIVE": "Ratio of cycles the device memory interface is active sending or receiving data.",
}
# Rates that the exporter of that generation wrongly calls counters. Others are in the catalogue.
_CALLED_COUNTERS_IN_1_X = {"DCGM_FI_PROF_PCIE_TX_BYTES", "DCGM_FI_PROF_PCIE_RX_BYTES"}
_ALIASES_OF_4_6 = {
    _DEV + "GPU_UTIL": ("GPU_UTIL_RATIO", "GPU utilization (in %)."),
    _DEV + "NVLINK_BANDWIDTH_TOTAL": (
        "NVLINK_THROUGHPUT_TOTAL",
        "Total number of NVLink bandwidth counters (in MB/s).",
    ),
}
# Fields that DCGM has renamed, and whose table in the catalogue has the new name: in these the alias is what came first.
_RENAMED_BY_4_6 = {
    _DEV + name
    for name in (
        "GPU_RECOVERY_ACTION",
        "CLOCKS_EVENT_REASONS",
        "GPU_TEMP_MARGIN_CELSIUS",
        "GPU_TEMP_SLOWDOWN_CELSIUS",
        "ECC_MODE",
        "INFOROM_VALID",
    )
}
_HOST_LABEL = {"4.5": "Hostname", "4.6": "Hostname", "4.8.3": "hostname", "4.9": "hostname"}


def written(metric: str, generation: str) -> Written:
    """How a generation writes a metric of the catalogue. Raises KeyError for other metrics."""
    info = CATALOGUE[metric]
    called_counter = info.called_counter and (generation == "1.x" or metric not in _CALLED_COUNTERS_IN_1_X)
    kind = "counter" if info.kind == "counter" or called_counter else "gauge"
    plain = _HELP.get(metric, f"{info.title} (in {info.unit}).")
    oldest = next((alias for alias in info.aliases if alias[0] == "d"), metric)
    old, new = metric, next((alias for alias in info.aliases if alias[0] != "d"), metric)
    if metric in _RENAMED_BY_4_6:
        oldest = old = new
        new = metric
    match generation:
        case "1.x":
            return Written(oldest, kind, plain)
        case "4.6":
            name, text = _ALIASES_OF_4_6.get(metric, ("", ""))
            return Written(_DEV + name, kind, text) if name else Written(new, kind, plain)
        case "4.9":
            if metric in _BASE:
                name, factor, text = _BASE[metric]
                return Written(_DEV + name, kind, text, _times(factor))
            return Written(new, kind, plain)
        case _:
            return Written(old, kind, plain)


def labels_of(gpu: Gpu, generation: str) -> str:
    """A GPU's labels in a generation's format, without braces."""
    labels: dict[str, str] = {"gpu": "" if gpu.gpu_id is None else str(gpu.gpu_id)}
    if generation == "1.x":
        labels["uuid"] = gpu.uuid
        workload = ("container_name", "pod_namespace", "pod_name")
    else:
        labels |= {
            "UUID": gpu.uuid,
            "pci_bus_id": f"00000000:{0x1B + (gpu.gpu_id or 0):02X}:00.0",
            "device": gpu.device,
            "modelName": gpu.model_name,
        }
        if gpu.mig_id:
            labels |= {"GPU_I_PROFILE": gpu.mig_profile, "GPU_I_ID": gpu.mig_id}
        labels[_HOST_LABEL[generation]] = gpu.hostname
        driver = "DCGM_FI_SYSTEM_DRIVER_VERSION" if generation == "4.9" else "DCGM_FI_DRIVER_VERSION"
        labels[driver] = gpu.driver_version
        workload = ("container", "namespace", "pod")
    if gpu.pod:
        labels |= dict(zip(workload, (gpu.container, gpu.namespace, gpu.pod), strict=True))
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def exposition(readings: Iterable[tuple[Gpu, str, float]], generation: str) -> str:
    """The /metrics page of an exporter of that generation: metric by metric, with HELP and TYPE."""
    pages: dict[str, list[str]] = {}
    labels: dict[int, str] = {}
    how: dict[str, Written] = {}
    for gpu, metric, value in readings:
        style = how.get(metric)
        if style is None:
            style = how[metric] = written(metric, generation)
            pages[metric] = [f"# HELP {style.name} {style.help}\n# TYPE {style.name} {style.kind}\n"]
        text = labels.get(id(gpu))
        if text is None:
            text = labels[id(gpu)] = labels_of(gpu, generation)
        if style.scale is not None:
            value = float(style.scale(value))
        shown = f"{value:.0f}" if value == int(value) else repr(value)
        pages[metric].append(f"{style.name}{{{text}}} {shown}\n")
    return "".join(line for page in pages.values() for line in page)


def other_rows(gpus: Sequence[Gpu], generation: str) -> str:
    """The other lines of an exporter that gives everything: links, CPUs, switches, XIDs and clock events by number. Empty for
    1.x, which had none of these."""
    if generation == "1.x":
        return ""
    host = _HOST_LABEL[generation]
    link = "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_" + ("TOTAL" if generation == "4.9" else "COUNT_TOTAL")
    lines = [f"# HELP {link} Total number of NVLink flow-control CRC errors.\n# TYPE {link} counter\n"]
    for gpu in gpus:
        shared = f'gpu="{gpu.gpu_id}",gpu_uuid="{gpu.uuid}",model_name="{_escaped(gpu.model_name)}"'
        lines += [f'{link}{{nvlink="{number}",{shared},{host}="{gpu.hostname}"}} {number}\n' for number in range(2)]
    for name, kind, label, value in (
        ("DCGM_EXP_XID_ERRORS_COUNT", "gauge", 'xid="79"', 1),
        ("DCGM_EXP_CLOCK_EVENTS_COUNT", "gauge", 'clock_event="sw_thermal"', 2),
    ):
        lines.append(f"# HELP {name} Count within the window.\n# TYPE {name} {kind}\n")
        window = 'window_size_in_ms="300000"'
        lines += [f"{name}{{{labels_of(gpu, generation)},{window},{label}}} {value}\n" for gpu in gpus]
    for name, label, text in (
        ("DCGM_FI_DEV_CPU_UTIL_TOTAL", 'cpu="0"', "0.12"),
        ("DCGM_FI_DEV_NVSWITCH_TEMPERATURE_CURRENT", 'nvswitch="0"', "41"),
    ):
        name_of_host = gpus[0].hostname if gpus else ""
        lines.append(
            f'# HELP {name} Not of a GPU.\n# TYPE {name} gauge\n{name}{{{label},{host}="{name_of_host}"}} {text}\n'
        )
    return "".join(lines)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
