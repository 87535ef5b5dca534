"""The stored state of an engine."""

from __future__ import annotations

import msgspec

from health.engine.absence import AbsenceState
from health.engine.book import BookState
from health.engine.fleetwide import FleetwideState
from health.engine.growth import Growth
from health.engine.identity import IdentityState
from health.engine.levels import Standing
from health.engine.registry import RegistryState
from health.engine.sampling import SamplingState
from health.engine.xids import XidState


class EngineState(msgspec.Struct):
    """The stored state of an Engine. Arrays are raw bytes."""

    version: int
    now_ns: int
    ticked_ns: int
    expired_ns: int
    settled_ns: int
    judged: int
    columns: list[str]
    values: bytes
    times_ns: bytes
    registry: RegistryState
    replaced: set[str]
    book: BookState
    standings: dict[str, dict[int, Standing]]
    growth: list[tuple[str, int, list[Growth]]]
    absence: AbsenceState
    xids: XidState
    identity: IdentityState
    sampling: SamplingState
    fleetwide: FleetwideState
