"""Codes in words, for summaries: ``{GPU_RECOVERY_ACTION:recovery}`` is "a reset of the GPU" for 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from readings.clock_events import Meaning, clock_events

# nvmlDeviceGpuRecoveryAction_t.
_RECOVERY = {
    0: "nothing",
    1: "a reset of the GPU",
    2: "a reboot of the host",
    3: "its peer-to-peer work to be drained",
    4: "a drain and a reset of the GPU",
    5: "a recovery of the IMEX domain",
    6: "a reset of its bus",
    7: "a reboot of the system",
}
_FABRIC = {1: "healthy", 2: "unhealthy", 3: "limited"}


def _recovery(value: float) -> str:
    return _RECOVERY.get(int(value), f"recovery action {value:.0f}")


def _fabric(value: float) -> str:
    return _FABRIC.get(int(value), f"in state {value:.0f}")


def _reasons(value: float) -> str:
    """The reasons that are no use as usual; all of them if there is none such."""
    events = clock_events(value)
    faults = [event.name for event in events if event.meaning is Meaning.FAULT]
    return ", ".join(faults or [event.name for event in events]) or f"mask {value:.0f}"


WORDINGS: Mapping[str, Callable[[float], str]] = {"recovery": _recovery, "fabric": _fabric, "reasons": _reasons}
