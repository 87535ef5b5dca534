"""How each generation of dcgm-exporter writes what we keep: names, units, help and labels. For fake exporters and tests.

1.x     dcgm_gpu_utilization, uuid and pod_name as labels, no host name
4.5     DCGM_FI_DEV_GPU_UTIL, Hostname
4.6     the aliases that DCGM 4.6 brought, for the old units
4.8.3   as 4.5, with hostname in lower case
4.9     new names in base units (Hz, bytes, joules, ratios), and another label for the driver's version
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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


# Canonical name -> name in base units, factor from the stored unit, help.
_BASE = {
    _DEV + "SM_CLOCK": ("SM_CLOCK_HERTZ", 1e6, "SM clock frequency (in Hz)."),
    _DEV + "MEM_CLOCK": ("MEMORY_CLOCK_HERTZ", 1e6, "Memory clock frequency (in Hz)."),
    _DEV + "TOTAL_ENERGY_CONSUMPTION": ("GPU_ENERGY_JOULES_TOTAL", 1e-3, "Total energy since boot (in J)."),
    _DEV + "GPU_UTIL": ("GPU_UTIL_RATIO", 1e-2, "GPU utilization ratio (0-1)."),
    _DEV + "MEM_COPY_UTIL": ("MEM_COPY_UTIL_RATIO", 1e-2, "Memory utilization ratio (0-1)."),
    _DEV + "ENC_UTIL": ("ENC_UTIL_RATIO", 1e-2, "Encoder utilization ratio (0-1)."),
    _DEV + "DEC_UTIL": ("DEC_UTIL_RATIO", 1e-2, "Decoder utilization ratio (0-1)."),
    _DEV + "FB_TOTAL": ("FB_CAPACITY_BYTES", 1048576, "Framebuffer memory capacity (in bytes)."),
    _DEV + "FB_FREE": ("FB_FREE_BYTES", 1048576, "Framebuffer memory free (in bytes)."),
    _DEV + "FB_USED": ("FB_USED_BYTES", 1048576, "Framebuffer memory used (in bytes)."),
    _DEV + "FB_RESERVED": ("FB_RESERVED_BYTES", 1048576, "Framebuffer memory reserved (in bytes)."),
    _DEV + "NVLINK_BANDWIDTH_TOTAL": ("NVLINK_THROUGHPUT_TOTAL", 1e6, "NVLink throughput (in bytes/s)."),
}
_ALIASES_OF_4_6 = {
    _DEV + "GPU_UTIL": ("GPU_UTIL_RATIO", "GPU utilization (in %)."),
    _DEV + "NVLINK_BANDWIDTH_TOTAL": (
        "NVLINK_THROUGHPUT_TOTAL",
        "Total number of NVLink bandwidth counters (in MB/s).",
    ),
}
_HOST_LABEL = {"4.5": "Hostname", "4.6": "Hostname", "4.8.3": "hostname", "4.9": "hostname"}


def written(metric: str, generation: str) -> Written:
    """How the generation writes a metric of the catalogue. Raises KeyError for others."""
    known = CATALOGUE[metric]
    kind = "counter" if known.kind == "counter" else "gauge"
    plain = f"{known.title} (in {known.unit})."
    old = next((alias for alias in known.aliases if alias[0] == "d"), metric)
    new = next((alias for alias in known.aliases if alias[0] != "d"), metric)
    match generation:
        case "1.x":
            return Written(old, kind, plain)
        case "4.6":
            name, text = _ALIASES_OF_4_6.get(metric, ("", ""))
            return Written(_DEV + name, kind, text) if name else Written(new, kind, plain)
        case "4.9":
            if metric in _BASE:
                name, factor, text = _BASE[metric]
                return Written(_DEV + name, kind, text, _times(factor))
            return Written(new, kind, plain)
        case _:
            return Written(metric, kind, plain)


def labels_of(gpu: Gpu, generation: str) -> str:
    """A GPU's labels as the generation writes them, without braces."""
    told: dict[str, str] = {"gpu": "" if gpu.gpu_id is None else str(gpu.gpu_id)}
    if generation == "1.x":
        told |= {"uuid": gpu.uuid, "device": gpu.device}
        workload = ("container_name", "pod_namespace", "pod_name")
    else:
        told |= {"UUID": gpu.uuid, "pci_bus_id": f"00000000:{0x1B + (gpu.gpu_id or 0):02X}:00.0", "device": gpu.device}
        told |= {"modelName": gpu.model_name}
        if gpu.mig_id:
            told |= {"GPU_I_PROFILE": gpu.mig_profile, "GPU_I_ID": gpu.mig_id}
        told[_HOST_LABEL[generation]] = gpu.hostname
        driver = "DCGM_FI_SYSTEM_DRIVER_VERSION" if generation == "4.9" else "DCGM_FI_DRIVER_VERSION"
        told[driver] = gpu.driver_version
        workload = ("container", "namespace", "pod")
    if gpu.pod:
        told |= dict(zip(workload, (gpu.container, gpu.namespace, gpu.pod), strict=True))
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in told.items())


def exposition(readings: Iterable[tuple[Gpu, str, float]], generation: str) -> str:
    """The page that an exporter of that generation answers: metric by metric, with HELP and TYPE."""
    pages: dict[str, list[str]] = {}
    labels: dict[int, str] = {}
    how: Mapping[str, Written]
    how = {}
    for gpu, metric, value in readings:
        style = how.get(metric)
        if style is None:
            style = how[metric] = written(metric, generation)
            pages[metric] = [f"# HELP {style.name} {style.help}\n# TYPE {style.name} {style.kind}\n"]
        text = labels.get(id(gpu))
        if text is None:
            text = labels[id(gpu)] = labels_of(gpu, generation)
        if style.scale is not None:
            value = style.scale(value)
        shown = f"{value:.0f}" if value == int(value) else repr(value)
        pages[metric].append(f"{style.name}{{{text}}} {shown}\n")
    return "".join(line for page in pages.values() for line in page)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
