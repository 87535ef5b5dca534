"""Metric names whose unit depends on the source: exporters have renamed metrics, and some names changed their unit.

dcgm-exporter 4.9 gives base units (Hz, bytes, joules, ratios) under new names, but 4.6 used some of these names for the
old unit. So the source's own texts decide the unit, never the size of a value: 1 may be 1 % or 100 %.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import NamedTuple

from readings.catalogue import canonical_name, with_totals

_DEV = "DCGM_FI_DEV_"

# The label with the driver's version, before 4.9 and since.
OLD_DRIVER_LABEL, NEW_DRIVER_LABEL = "DCGM_FI_DRIVER_VERSION", "DCGM_FI_SYSTEM_DRIVER_VERSION"


class Folded(NamedTuple):
    """A metric's stored name, and the conversion of its values to the stored unit (None: they are in it)."""

    name: str
    convert: Callable[[float], float] | None


def _to_millions(value: float) -> float:
    return value / 1e6


def _to_mib(value: float) -> float:
    return value / 1048576


def _whole(factor: float) -> Callable[[float], float]:
    return lambda value: float(round(value * factor))  # DCGM counts whole mJ and ns: a fraction is a rounding error


def _to_percent(value: float) -> float:
    return round(value * 100, 6)  # 0.57 * 100 is not 57, and the same GPU must give the same series


# Names that always mean base units.
_BASE_NAMES = {
    _DEV + "SM_CLOCK_HERTZ": Folded(_DEV + "SM_CLOCK", _to_millions),
    _DEV + "MEMORY_CLOCK_HERTZ": Folded(_DEV + "MEM_CLOCK", _to_millions),
    _DEV + "GPU_ENERGY_JOULES_TOTAL": Folded(_DEV + "TOTAL_ENERGY_CONSUMPTION", _whole(1000)),
    _DEV + "FB_FREE_BYTES": Folded(_DEV + "FB_FREE", _to_mib),
    _DEV + "FB_USED_BYTES": Folded(_DEV + "FB_USED", _to_mib),
    _DEV + "FB_RESERVED_BYTES": Folded(_DEV + "FB_RESERVED", _to_mib),
    _DEV + "FB_CAPACITY_BYTES": Folded(_DEV + "FB_TOTAL", _to_mib),
    _DEV + "MEMORY_UTIL_RATIO": Folded(_DEV + "MEM_COPY_UTIL", _to_percent),
    _DEV + "NVLINK_THROUGHPUT_BYTES_PER_SECOND": Folded(_DEV + "NVLINK_BANDWIDTH_TOTAL", _to_millions),
    **{
        f"{_DEV}GPU_{new}_THROTTLE_SECONDS_TOTAL": Folded(f"{_DEV}{old}_VIOLATION", _whole(1e9))
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
# Names that mean base units since 4.9 and the old unit before.
_AMBIGUOUS = {
    _DEV + "GPU_UTIL_RATIO": Folded(_DEV + "GPU_UTIL", _to_percent),
    _DEV + "MEM_COPY_UTIL_RATIO": Folded(_DEV + "MEM_COPY_UTIL", _to_percent),
    _DEV + "ENC_UTIL_RATIO": Folded(_DEV + "ENC_UTIL", _to_percent),
    _DEV + "DEC_UTIL_RATIO": Folded(_DEV + "DEC_UTIL", _to_percent),
    _DEV + "NVLINK_THROUGHPUT_TOTAL": Folded(_DEV + "NVLINK_BANDWIDTH_TOTAL", _to_millions),
}
for _names in (_BASE_NAMES, _AMBIGUOUS):
    _names |= {
        spelling: _names[name] for name in list(_names) if name.endswith("_TOTAL") for spelling in with_totals((name,))
    }
_PERCENT_WORDS = ("%", "percent", "0-100", "mb/s")
_RATIO_WORDS = ("ratio", "0-1", "0.0-1.0", "0 to 1", "fraction", "bytes/s", "bytes per second")


class SourceUnits:
    """The units of one source (a file, one exporter). Call the ``note_`` methods with all of it before ``fold``.

    A metric's help text counts first, then the labels of its row, then the labels and metric names of the whole source.
    Without any of these an ambiguous name is kept, with its values: an unknown metric rather than a wrong one.
    """

    def __init__(self) -> None:
        self._by_help: dict[str, bool] = {}
        self._hints: set[bool] = set()

    @property
    def base_units(self) -> bool | None:
        """Whether the source gives base units; None if it shows neither or both."""
        return next(iter(self._hints)) if len(self._hints) == 1 else None

    def note_help(self, name: str, text: str) -> None:
        """Notes a metric's help text."""
        if name not in _AMBIGUOUS:
            return
        lowered = text.lower()
        # "GPU utilization (in %)" or "… ratio (0-1)". An old help text may have both; then the percent sign decides.
        if any(word in lowered for word in _PERCENT_WORDS):
            self._by_help[name] = False
        elif any(word in lowered for word in _RATIO_WORDS):
            self._by_help[name] = True

    def note_text(self, text: str) -> None:
        """Notes the drivers' labels and the metric names (only those new in 4.9 matter) in a piece of the source's raw text."""
        if OLD_DRIVER_LABEL in text:
            self._hints.add(False)
        if NEW_DRIVER_LABEL in text or any(name in text for name in _BASE_NAMES):
            self._hints.add(True)

    def fold(self, name: str, labels: Container[str] = ()) -> Folded:
        """The stored name and conversion of ``name`` in a row with these labels."""
        trimmed = name.strip()
        folded = _BASE_NAMES.get(trimmed)
        if folded is not None:
            return folded
        folded = _AMBIGUOUS.get(trimmed)
        if folded is None:
            return Folded(canonical_name(trimmed), None)
        base = self._by_help.get(trimmed)
        if base is None:
            is_new, is_old = NEW_DRIVER_LABEL in labels, OLD_DRIVER_LABEL in labels
            base = is_new if is_new != is_old else None
        if base is None:
            base = self.base_units
        if base is None:
            return Folded(trimmed, None)
        return folded if base else Folded(folded.name, None)
