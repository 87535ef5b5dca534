"""Short ways to say what was read, for the inventory's tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inventory.newest import newest_by_host
from inventory.sync.memory import save_sightings
from inventory.sync.sightings import Sightings
from readings.model import DRIVER_LABEL, Gpu, PointBlock

SECOND = 1_000_000_000
T0 = 1_752_871_354 * SECOND  # 2025-07-18T20:42:34Z

UTIL = "DCGM_FI_DEV_GPU_UTIL"
POWER = "DCGM_FI_DEV_POWER_USAGE"
TEMP = "DCGM_FI_DEV_GPU_TEMP"
USED = "DCGM_FI_DEV_FB_USED"
FREE = "DCGM_FI_DEV_FB_FREE"


def gpu(uuid: str = "GPU-a", **fields: Any) -> Gpu:
    """A GPU in slot 0 of host-1, unless told otherwise."""
    told: dict[str, Any] = {
        "hostname": "host-1",
        "gpu_id": 0,
        "device": "nvidia0",
        "model_name": "NVIDIA H100 80GB HBM3",
        "labels": {DRIVER_LABEL: "535.129.03"},
    }
    return Gpu(uuid=uuid, **(told | fields))


def block(of: Gpu, seconds: float, values: Mapping[str, float | None]) -> PointBlock:
    """One point, ``seconds`` after T0."""
    return PointBlock([of], list(values), [(0, T0 + round(seconds * SECOND), list(values.values()))])


def seen(*blocks: PointBlock) -> Sightings:
    """Sightings of these blocks."""
    sightings = Sightings()
    for each in blocks:
        sightings.add(each)
    return sightings


def save(*blocks: PointBlock) -> None:
    """Save sightings of these blocks, as one flush."""
    save_sightings(seen(*blocks))


def latest(gpu_id: str = "GPU-a") -> dict[str, tuple[float, int]]:
    """The newest reading of each metric of a GPU: value and time in ns."""
    for host in newest_by_host().values():
        if gpu_id in host.gpu_ids:
            row = host.gpu_ids.index(gpu_id)
            readings = zip(host.metric_names, host.values[row].tolist(), host.times_ns[row].tolist(), strict=True)
            return {name: (value, time_ns) for name, value, time_ns in readings if time_ns}
    raise LookupError(gpu_id)


def values(gpu_id: str = "GPU-a") -> dict[str, float]:
    """The newest value of each metric of a GPU."""
    return {name: value for name, (value, _) in latest(gpu_id).items()}


def fleet(count: int, seconds: float = 0.0, **fields: Any) -> PointBlock:
    """One whole point of each of ``count`` GPUs, eight to a host."""
    gpus = [gpu(f"GPU-{n:04d}", hostname=f"host-{n // 8:03d}", gpu_id=n % 8, **fields) for n in range(count)]
    time_ns = T0 + round(seconds * SECOND)
    return PointBlock(
        gpus,
        [UTIL, POWER, TEMP, USED, FREE],
        [(n, time_ns, [float(n % 101), 300.5, 40.0, 5120.0, 75887.0]) for n in range(count)],
    )
