"""Takes GPUs that have not been heard of for long out of an engine's state, so that a fleet that changes does not grow for ever."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import DTypeLike, NDArray

from health.engine.identity import IdentityState
from health.engine.registry import RegistryState
from health.engine.sampling import SamplingState
from health.engine.state import EngineState

T = TypeVar("T")


def without_departed(state: EngineState, before_ns: int) -> EngineState:
    """The state without the GPUs whose newest sample is before ``before_ns``, as far as no event of them is open.

    Rows of the registry are numbered anew: whoever keeps rows has to begin anew with this state.
    """
    registry = state.registry
    rows = len(registry.gpus)
    keep = np.frombuffer(registry.last_ns, np.int64) >= before_ns
    named = {event.key.entity.id for event in state.book.open}
    keep |= np.array([gpu.id in named for gpu in registry.gpus], np.bool_)
    keep[np.frombuffer(registry.board, np.int32)[keep]] = True
    if keep.all():
        return state
    old = np.flatnonzero(keep)
    new_row = np.full(rows, -1, np.int32)
    new_row[old] = np.arange(len(old))
    moved = {int(row): int(new_row[row]) for row in old}
    metrics = len(state.columns)
    return msgspec.structs.replace(
        state,
        values=_columns(state.values, np.float64, metrics, old),
        times_ns=_columns(state.times_ns, np.int64, metrics, old),
        registry=_registry(registry, old, moved, new_row),
        standings={name: _by_row(standings, moved) for name, standings in state.standings.items()},
        growth=[(metric, moved[row], steps) for metric, row, steps in state.growth if row in moved],
        xids=msgspec.structs.replace(state.xids, pasts=_by_row(state.xids.pasts, moved)),
        identity=IdentityState(
            [moved[row] for row in state.identity.pending if row in moved], _by_row(state.identity.resets, moved)
        ),
        sampling=_sampling(state.sampling, old),
    )


def _by_row(values: Mapping[int, T], moved: Mapping[int, int]) -> dict[int, T]:
    return {moved[row]: value for row, value in values.items() if row in moved}


def _row(data: bytes, kind: DTypeLike, old: NDArray[np.int64]) -> bytes:
    return np.frombuffer(data, kind)[old].tobytes()


def _columns(data: bytes, kind: DTypeLike, metrics: int, old: NDArray[np.int64]) -> bytes:
    return np.frombuffer(data, kind).reshape(metrics, -1)[:, old].tobytes() if metrics else b""


def _registry(
    registry: RegistryState, old: NDArray[np.int64], moved: Mapping[int, int], new_row: NDArray[np.int32]
) -> RegistryState:
    return RegistryState(
        gpus=[registry.gpus[row] for row in old.tolist()],
        shares=_by_row(registry.shares, moved),
        first_ns=_row(registry.first_ns, np.int64, old),
        last_ns=_row(registry.last_ns, np.int64, old),
        before_ns=_row(registry.before_ns, np.int64, old),
        heard_ns=_row(registry.heard_ns, np.int64, old),
        heard_before_ns=_row(registry.heard_before_ns, np.int64, old),
        step_ns=_row(registry.step_ns, np.int64, old),
        board=new_row[np.frombuffer(registry.board, np.int32)[old]].astype(np.int32).tobytes(),
        held=_row(registry.held, np.bool_, old),
        ahead=_by_row(registry.ahead, moved),
    )


def _sampling(sampling: SamplingState, old: NDArray[np.int64]) -> SamplingState:
    width = max(sampling.rows, 1)
    return msgspec.structs.replace(
        sampling,
        rows=len(old),
        counts=_row(sampling.counts, np.int32, old),
        known=_row(sampling.known, np.int32, old),
        shares=np.frombuffer(sampling.shares, np.float32).reshape(-1, width)[:, old].tobytes(),
        present=np.frombuffer(sampling.present, np.float32).reshape(sampling.metrics, width)[:, old].tobytes(),
        absent=np.frombuffer(sampling.absent, np.int16).reshape(sampling.metrics, width)[:, old].tobytes(),
    )
