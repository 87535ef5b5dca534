"""Why a GPU holds its clocks down: the bits of DCGM_FI_DEV_CLOCKS_EVENT_REASONS, in NVML's words."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

CLOCK_EVENTS = "DCGM_FI_DEV_CLOCKS_EVENT_REASONS"


class Meaning(StrEnum):
    """What a reason means. Only a ``FAULT`` is one: heat, or power that does not suffice."""

    FAULT = "fault"
    LIMIT = "limit"
    NORMAL = "normal"


class ClockEvent(NamedTuple):
    """One bit. ``name`` is short enough for a table, ``text`` says what it means."""

    bit: int
    name: str
    meaning: Meaning
    text: str


CLOCK_EVENT_BITS = (
    ClockEvent(0x01, "idle", Meaning.NORMAL, "Nothing runs, so the clocks are low. No fault."),
    ClockEvent(0x02, "application clocks", Meaning.NORMAL, "Somebody set these clocks. No fault."),
    ClockEvent(0x04, "power cap", Meaning.LIMIT, "The GPU draws all that its power limit allows. Usual under full load."),
    ClockEvent(
        0x08, "hardware slowdown", Meaning.FAULT, "The hardware cut the clocks to half or less: heat or power. Look at the other reasons."
    ),
    ClockEvent(0x10, "sync boost", Meaning.NORMAL, "The GPU keeps to the clocks of others in its group. No fault."),
    ClockEvent(0x20, "thermal, software", Meaning.FAULT, "The driver lowers the clocks to cool the GPU or its memory."),
    ClockEvent(0x40, "thermal, hardware", Meaning.FAULT, "The GPU is too hot, and the hardware cut the clocks."),
    ClockEvent(0x80, "power brake", Meaning.FAULT, "The server told the GPU to brake: look at its power supplies."),
    ClockEvent(0x100, "display clocks", Meaning.NORMAL, "A display sets the clocks. No fault."),
)  # fmt: skip
FAULT_BITS = sum(event.bit for event in CLOCK_EVENT_BITS if event.meaning is Meaning.FAULT)


def clock_events(mask: float) -> list[ClockEvent]:
    """The reasons in a mask. Bits that NVML does not name here are left out."""
    bits = int(mask)
    return [event for event in CLOCK_EVENT_BITS if bits & event.bit]


def is_throttled(mask: float) -> bool:
    """Whether heat or a lack of power holds the clocks down."""
    return bool(int(mask) & FAULT_BITS)
