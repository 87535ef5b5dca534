"""What GPUs did in one period (an hour or a day), as arrays and as the bytes of a row in the database.

A cell is a GPU at one place (host, model) with one holder (namespace, pod). Its figures are integers (nanoseconds and millijoules), so
that sums of cells are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from readings.times import SECOND

Ints = NDArray[np.int64]
Codes = NDArray[np.int32]

HOUR_NS = 3600 * SECOND
DAY_HOURS = 24
# In place of a holder's number: nobody holds the GPU; what it did is unknown (only its energy counter went on).
FREE, GAP = -1, -2

_VERSION = 1
_WIDTHS = tuple(np.dtype(name) for name in ("<u1", "<u2", "<u4", "<i8"))
_LEVEL = 3
# A row of 100,000 GPUs with a holder each.
_MOST_BYTES = 1 << 30


class Figure(IntEnum):
    """The rows of ``Period.figures``: times in ns, energies in mJ. docs/usage.md defines them for people."""

    KNOWN = 0
    ACTIVE = 1  # utilisation at or above the threshold
    ACTIVE_SECOND = 2  # the same for the second threshold
    IDLE = 3  # held and below the threshold, in runs of 15 minutes or more
    IDLE_SECOND = 4
    MEASURED = 5  # the utilisation is known
    EFFECTIVE = 6  # time x share of the SMs that were active
    EFFECTIVE_KNOWN = 7  # the time of which that is known
    UPPER_BOUND = 8  # of this, where the utilisation stood in for it
    COUNTED_MJ = 9  # by the energy counter
    ESTIMATED_MJ = 10  # by mean power x time
    ENERGY_KNOWN = 11  # the time of which the energy is known
    IDLE_MJ = 12  # energy of the idle time: held as IDLE; not held wherever the utilisation is below the threshold
    DRAWN_MJ = 13  # power x time where the power limit is known too
    LIMIT_MJ = 14  # that limit x the same time


FIGURES = len(Figure)


class PackingError(ValueError):
    """The bytes of a period cannot be read."""


class BoardPlace(NamedTuple):
    """A GPU's host and model while it was there."""

    uuid: str
    hostname: str
    model: str


class Holder(NamedTuple):
    """Who has a GPU."""

    namespace: str
    pod: str


def _no_codes() -> Codes:
    return np.zeros(0, np.int32)


def _no_times() -> Ints:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Period:
    """The hours from ``start_ns`` on, ``hours`` of them.

    ``first_ns`` and ``last_ns`` have, for each of ``places``, the GPU's first sample of all and its last one in the period. Cell i is of
    ``places[place[i]]`` and ``holders[holder[i]]`` (or FREE, or GAP); ``figures`` is Figure x cells.
    """

    start_ns: int
    hours: int
    places: tuple[BoardPlace, ...] = ()
    first_ns: Ints = field(default_factory=_no_times)
    last_ns: Ints = field(default_factory=_no_times)
    holders: tuple[Holder, ...] = ()
    place: Codes = field(default_factory=_no_codes)
    holder: Codes = field(default_factory=_no_codes)
    figures: Ints = field(default_factory=lambda: np.zeros((FIGURES, 0), np.int64))

    @property
    def end_ns(self) -> int:
        """Its end, which is no part of it."""
        return self.start_ns + self.hours * HOUR_NS


class _PackedPlaces(msgspec.Struct, array_like=True, frozen=True):
    uuids: tuple[str, ...]
    hostnames: tuple[str, ...]  # the different ones; ``host`` has each place's number among them
    host: bytes
    models: tuple[str, ...]
    model: bytes


class _PackedPeriod(msgspec.Struct, array_like=True, frozen=True):
    version: int
    places: bytes  # by themselves, because those of the next period are mostly the same
    first: bytes
    last: bytes
    holders: bytes
    place: bytes
    holder: bytes
    figures: tuple[tuple[int, bytes], ...]  # the width of each number, 0 where all are 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_PackedPeriod).decode


def pack(period: Period) -> bytes:
    """The bytes that ``unpack`` reads."""
    hostnames, host = _numbered([place.hostname for place in period.places])
    models, model = _numbered([place.model for place in period.places])
    uuids = tuple(place.uuid for place in period.places)
    packed = _PackedPeriod(
        _VERSION,
        _encode(_PackedPlaces(uuids, hostnames, _bytes(host), models, _bytes(model))),
        _bytes(period.first_ns),
        _bytes(period.last_ns),
        _encode(period.holders),
        _bytes(period.place),
        _bytes(period.holder),
        tuple(_narrow(row) for row in period.figures),
    )
    return zstandard.ZstdCompressor(level=_LEVEL).compress(_encode(packed))


def unpack(data: bytes, start_ns: int, hours: int) -> Period:
    """The period of these bytes. Equal places and holders of several periods are mostly one object. Raises PackingError."""
    try:
        packed = _decode(zstandard.ZstdDecompressor().decompress(data, max_output_size=_MOST_BYTES))
        if packed.version != _VERSION:
            raise ValueError(f"its version is {packed.version}, and {_VERSION} is known here")
        if len(packed.figures) != FIGURES:
            raise ValueError(f"it has {len(packed.figures)} figures, and {FIGURES} are known here")
        place = _codes(packed.place)
        figures = np.zeros((FIGURES, len(place)), np.int64)
        for row, (width, content) in enumerate(packed.figures):
            if width:
                figures[row] = np.frombuffer(content, _WIDTHS[width.bit_length() - 1])
        return Period(
            start_ns,
            hours,
            _places_of(packed.places),
            np.frombuffer(packed.first, "<i8"),
            np.frombuffer(packed.last, "<i8"),
            _holders_of(packed.holders),
            place,
            _codes(packed.holder),
            figures,
        )
    except (msgspec.MsgspecError, zstandard.ZstdError, ValueError, IndexError) as error:
        raise PackingError(f"a period of usage cannot be read: {error}") from error


@lru_cache(maxsize=4)
def _places_of(data: bytes) -> tuple[BoardPlace, ...]:
    packed = msgspec.msgpack.decode(data, type=_PackedPlaces)
    host, model = _codes(packed.host).tolist(), _codes(packed.model).tolist()
    return tuple(
        BoardPlace(uuid, packed.hostnames[host_at], packed.models[model_at])
        for uuid, host_at, model_at in zip(packed.uuids, host, model, strict=True)
    )


@lru_cache(maxsize=4)
def _holders_of(data: bytes) -> tuple[Holder, ...]:
    return msgspec.msgpack.decode(data, type=tuple[Holder, ...])


def merge(periods: Sequence[Period], start_ns: int, hours: int) -> Period:
    """One period with the sums of all, which lie within it."""
    place_codes: dict[BoardPlace, int] = {}
    holder_codes: dict[Holder, int] = {}
    place_parts, holder_parts, first_parts, last_parts, at_parts = [], [], [], [], []
    for period in periods:
        at = np.array([place_codes.setdefault(place, len(place_codes)) for place in period.places], np.int64)
        holders = [holder_codes.setdefault(holder, len(holder_codes)) for holder in period.holders]
        # The last two are for FREE and GAP, which count from the end.
        of_holder = np.array([*holders, GAP, FREE], np.int64)
        at_parts.append(at)
        first_parts.append(period.first_ns)
        last_parts.append(period.last_ns)
        place_parts.append(at[period.place])
        holder_parts.append(of_holder[period.holder])
    count = len(place_codes)
    first, last = np.full(count, np.iinfo(np.int64).max), np.zeros(count, np.int64)
    if periods:
        at = np.concatenate(at_parts)
        np.minimum.at(first, at, np.concatenate(first_parts))
        np.maximum.at(last, at, np.concatenate(last_parts))
    places, holders_found = tuple(place_codes), tuple(holder_codes)
    if not any(len(part) for part in place_parts):
        return Period(start_ns, hours, places, first, last, holders_found)
    place, holder = np.concatenate(place_parts), np.concatenate(holder_parts)
    figures = np.concatenate([period.figures for period in periods], axis=1)
    order = np.lexsort((holder, place))
    place, holder = place[order], holder[order]
    starts = np.flatnonzero(np.concatenate([[True], (place[1:] != place[:-1]) | (holder[1:] != holder[:-1])]))
    return Period(
        start_ns,
        hours,
        places,
        first,
        last,
        holders_found,
        place[starts].astype(np.int32),
        holder[starts].astype(np.int32),
        np.add.reduceat(figures[:, order], starts, axis=1),
    )


def _numbered(texts: Sequence[str]) -> tuple[tuple[str, ...], Codes]:
    """The different texts, and for each its number among them."""
    codes: dict[str, int] = {}
    at = [codes.setdefault(text, len(codes)) for text in texts]
    return tuple(codes), np.array(at, np.int32)


def _codes(data: bytes) -> Codes:
    return np.frombuffer(data, "<i4")


def _bytes(array: Ints | Codes) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _narrow(row: Ints) -> tuple[int, bytes]:
    """The numbers, none below 0, in the fewest bytes that hold the largest."""
    largest = int(row.max()) if len(row) else 0
    if not largest:
        return 0, b""
    width = next(width for width in _WIDTHS if width.kind == "i" or largest <= np.iinfo(width).max)
    return width.itemsize, row.astype(width).tobytes()
