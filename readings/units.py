"""What a metric's name means in one source: exporters have renamed metrics, and some names changed their unit on the way.

dcgm-exporter 4.9 gives base units (Hz, bytes, joules, ratios) under new names; 4.6 had some of these names already, for the old
unit. So the unit is decided by what the source tells about itself, never by how large a value is: 1 may be 1 % or 100 %.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import NamedTuple

from readings.catalogue import canonical_name

_DEV = "DCGM_FI_DEV_"

# The label that tells the driver's version, before 4.9 and since.
OLD_DRIVER_LABEL, NEW_DRIVER_LABEL = "DCGM_FI_DRIVER_VERSION", "DCGM_FI_SYSTEM_DRIVER_VERSION"


class Folded(NamedTuple):
    """The one name of a metric, and how its values come to the stored unit (None: they are in it)."""

    name: str
    convert: Callable[[float], float] | None


def _to_millions(value: float) -> float:
    return value / 1e6


def _to_mib(value: float) -> float:
    return value / 1048576


def _to_thousandths(value: float) -> float:
    return float(round(value * 1000))  # DCGM counts whole mJ: what is beside them is the multiplication's


def _to_billionths(value: float) -> float:
    return float(round(value * 1e9))


def _to_percent(value: float) -> float:
    return round(value * 100, 6)  # 0.57 * 100 is not 57, and the same GPU is to give the same series


# Names that tell their unit.
_TOLD = {
    _DEV + "SM_CLOCK_HERTZ": Folded(_DEV + "SM_CLOCK", _to_millions),
    _DEV + "MEMORY_CLOCK_HERTZ": Folded(_DEV + "MEM_CLOCK", _to_millions),
    _DEV + "GPU_ENERGY_JOULES_TOTAL": Folded(_DEV + "TOTAL_ENERGY_CONSUMPTION", _to_thousandths),
    _DEV + "FB_FREE_BYTES": Folded(_DEV + "FB_FREE", _to_mib),
    _DEV + "FB_USED_BYTES": Folded(_DEV + "FB_USED", _to_mib),
    _DEV + "FB_RESERVED_BYTES": Folded(_DEV + "FB_RESERVED", _to_mib),
    _DEV + "FB_CAPACITY_BYTES": Folded(_DEV + "FB_TOTAL", _to_mib),
    _DEV + "MEMORY_UTIL_RATIO": Folded(_DEV + "MEM_COPY_UTIL", _to_percent),
    _DEV + "NVLINK_THROUGHPUT_BYTES_PER_SECOND": Folded(_DEV + "NVLINK_BANDWIDTH_TOTAL", _to_millions),
    **{
        f"{_DEV}GPU_{new}_THROTTLE_SECONDS_TOTAL": Folded(f"{_DEV}{old}_VIOLATION", _to_billionths)
        for new, old in (
            ("POWER", "POWER"),
            ("THERMAL", "THERMAL"),
            ("SYNC_BOOST", "SYNC_BOOST"),
            ("LIMIT", "BOARD_LIMIT"),
            ("LOW_UTIL", "LOW_UTIL"),
            ("RELIABILITY", "RELIABILITY"),
        )
    },
}
# Names that were there before 4.9, for the old unit: what they are in base units.
_DEPENDS = {
    _DEV + "GPU_UTIL_RATIO": Folded(_DEV + "GPU_UTIL", _to_percent),
    _DEV + "MEM_COPY_UTIL_RATIO": Folded(_DEV + "MEM_COPY_UTIL", _to_percent),
    _DEV + "ENC_UTIL_RATIO": Folded(_DEV + "ENC_UTIL", _to_percent),
    _DEV + "DEC_UTIL_RATIO": Folded(_DEV + "DEC_UTIL", _to_percent),
    _DEV + "NVLINK_THROUGHPUT_TOTAL": Folded(_DEV + "NVLINK_BANDWIDTH_TOTAL", _to_millions),
}
_PERCENT_WORDS = ("%", "percent", "0-100", "mb/s")
_RATIO_WORDS = ("ratio", "0-1", "0.0-1.0", "0 to 1", "fraction", "bytes/s", "bytes per second")


class SourceUnits:
    """What one source (a file, one exporter) tells of its units. Tell it all there is before asking ``fold``.

    The help of a metric counts first, then the labels of its row, then what labels and metric names the source has at all. Where
    nothing tells, a name that may mean either is kept as it is, with its values: an unknown metric, not a wrong one.
    """

    def __init__(self) -> None:
        self._by_help: dict[str, bool] = {}
        self._hints: set[bool] = set()

    @property
    def base_units(self) -> bool | None:
        """Whether the source gives base units; None where it tells nothing or both."""
        return next(iter(self._hints)) if len(self._hints) == 1 else None

    def note_help(self, name: str, text: str) -> None:
        """Take in a metric's help text."""
        if name not in _DEPENDS:
            return
        lowered = text.lower()
        # "GPU utilization (in %)" or "… ratio (0-1)"; an old help may say both words, and the percent sign decides then.
        if any(word in lowered for word in _PERCENT_WORDS):
            self._by_help[name] = False
        elif any(word in lowered for word in _RATIO_WORDS):
            self._by_help[name] = True

    def note_labels(self, labels: Iterable[str]) -> None:
        """Take in the label names that some row has."""
        told = _told_by(set(labels))
        if told is not None:
            self._hints.add(told)

    def note_name(self, name: str) -> None:
        """Take in that the source has this metric. Only names that 4.9 brought tell anything."""
        if name in _TOLD:
            self._hints.add(True)

    def note_text(self, text: str) -> None:
        """Take in a piece of the source as it is, where reading it row by row would be too late."""
        for label in (OLD_DRIVER_LABEL, NEW_DRIVER_LABEL):
            if label in text:
                self.note_labels((label,))
        for name in _TOLD:
            if name in text:
                self.note_name(name)

    def fold(self, name: str, labels: Container[str] = ()) -> Folded:
        """The one name of ``name``, in a row that has these labels."""
        trimmed = name.strip()
        told = _TOLD.get(trimmed)
        if told is not None:
            return told
        depends = _DEPENDS.get(trimmed)
        if depends is None:
            return Folded(canonical_name(trimmed), None)
        base = self._by_help.get(trimmed)
        if base is None:
            base = _told_by(labels)
        if base is None:
            base = self.base_units
        if base is None:
            return Folded(trimmed, None)
        return depends if base else Folded(depends.name, None)


def _told_by(labels: Container[str]) -> bool | None:
    new, old = NEW_DRIVER_LABEL in labels, OLD_DRIVER_LABEL in labels
    return new if new != old else None
