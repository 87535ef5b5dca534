"""How much of a question about windows may be in memory at once."""

from __future__ import annotations

from typing import NamedTuple

MIB = 1 << 20
DEFAULT_MEMORY = 128 * MIB
# What a question may look at before it counts as heavy.
LIGHT_READINGS = 200_000
LIGHT_SECONDS = 5.0

# The most readings in a part of Store.readings().
READINGS_IN_A_PART = 300_000

# Bytes at the peak, with all temporary arrays: of a reading while percentiles are computed, of a partial aggregate (a window
# of a member), and of a distinct value of a group.
_READING_BYTES = 256
_PARTIAL_BYTES = 64
_DISTINCT_BYTES = 256
# Bytes of a row in an answer of a server, decoded; three answers may be there at once.
_ROW_BYTES = 3 * 256


class Limits(NamedTuple):
    """The most of each kind at once: readings, windows times members, windows times groups, distinct values, rows."""

    readings: int
    partials: int
    values: int
    distinct: int
    rows: int


class PartTooLarge(Exception):
    """A part of the range holds more readings than may be in memory at once: read a shorter one."""


def limits_of(memory: int) -> Limits:
    """The limits that keep a question within about this many bytes. A part of each kind may be there at the same time."""
    return Limits(
        readings=memory // _READING_BYTES,
        partials=memory // 2 // _PARTIAL_BYTES,
        values=memory // 4 // 8,
        distinct=memory // 4 // _DISTINCT_BYTES,
        rows=memory // _ROW_BYTES,
    )


def check_count(count: int, most: int) -> None:
    """Raise PartTooLarge for more readings than ``most``."""
    if count > most:
        raise PartTooLarge
