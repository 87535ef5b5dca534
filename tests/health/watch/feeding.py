"""A small fleet with faults, step by step. What happens is decided by the readings' own times, so a log of it always means the same."""

from __future__ import annotations

import random
from collections.abc import Iterator

from readings.batch import encode_block
from readings.model import Gpu, PointBlock
from readings.times import SECOND

STEP_NS = 10 * SECOND
UTIL, TEMP, XID = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_XID_ERRORS"
DBE, REPLAYS = "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "DCGM_FI_DEV_PCIE_REPLAY_COUNTER"
ENERGY, REMAP = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_ROW_REMAP_FAILURE"
METRICS = [UTIL, TEMP, XID, DBE, REPLAYS, ENERGY, REMAP]
_CODES = (13, 31, 43, 48, 63, 74, 79, 94, 95, 119)


def make_gpus(hosts: int = 3, slots: int = 4) -> list[Gpu]:
    """A fleet of H100s. The GPUs of the last host have pods."""
    return [
        Gpu(
            uuid=f"GPU-{host}-{slot}",
            hostname=f"node-{host}",
            gpu_id=slot,
            model_name="NVIDIA H100 80GB HBM3",
            namespace="team" if host == hosts - 1 else "",
            pod="job" if host == hosts - 1 else "",
        )
        for host in range(hosts)
        for slot in range(slots)
    ]


def faulty_blocks(seed: int, start_ns: int, steps: int, gpus: list[Gpu] | None = None) -> Iterator[PointBlock]:
    """One block for each step, with faults that come and go: XIDs, heat, double-bit errors, resets, GPUs that are gone for a while."""
    chance = random.Random(seed)
    gpus = gpus or make_gpus()
    state = [{UTIL: 60.0, TEMP: 60.0, XID: 0.0, DBE: 0.0, REPLAYS: 0.0, ENERGY: 1e9, REMAP: 0.0} for _ in gpus]
    gone_until = [0] * len(gpus)
    for step in range(steps):
        points = []
        for index, values in enumerate(state):
            values[ENERGY] += 5e6
            if chance.random() < 0.01:
                values[XID] = float(chance.choice(_CODES))
            if chance.random() < 0.02:
                values[TEMP] = 97.0 if values[TEMP] < 90 else 60.0
            if chance.random() < 0.003:
                values[DBE] += 1
            if chance.random() < 0.002:
                values[REMAP] = 1 - values[REMAP]
            if chance.random() < 0.002:
                values[ENERGY] = values[DBE] = values[XID] = 0.0
            if chance.random() < 0.004:
                gone_until[index] = step + chance.randrange(5, 40)
            if step >= gone_until[index]:
                points.append((index, start_ns + step * STEP_NS, [values[name] for name in METRICS]))
        if points:
            yield PointBlock(gpus, METRICS, points)  # type: ignore[arg-type]


def as_messages(blocks: Iterator[PointBlock]) -> list[bytes]:
    """The batches of a capture with these blocks."""
    return [encode_block(block, batch_id="", source="feed", collected_at="", live=False) for block in blocks]
