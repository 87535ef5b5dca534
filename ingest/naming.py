"""From the name that a row gives its metric to the one name and unit that are stored."""

from __future__ import annotations

from collections.abc import Mapping

from readings.catalogue import PART_LABELS, name_of_part
from readings.checks import check_metric_name
from readings.units import NEW_DRIVER_LABEL, OLD_DRIVER_LABEL, Folded, SourceUnits

# All labels that have a say in what a name means. Rows that agree in them share a Folded.
TELLING = (*PART_LABELS, OLD_DRIVER_LABEL, NEW_DRIVER_LABEL)
_MOST_NAMES = 10_000

Telling = tuple[tuple[str, str], ...]


def telling(labels: Mapping[str, str]) -> Telling:
    """Those of a row's labels that have a say in what its metric's name means."""
    return tuple((name, labels[name]) for name in TELLING if name in labels)


class Namer:
    """Names metrics for one source; asks ``units`` once per name."""

    def __init__(self, units: SourceUnits) -> None:
        self._units = units
        self._names: dict[tuple[str, Telling], Folded] = {}

    def name(self, text: str, told: Telling) -> Folded:
        """The stored name, and how values get the stored unit. Raises Refused when it is no name."""
        key = (text, told)
        folded = self._names.get(key)
        if folded is None:
            labels = dict(told)
            name, convert = self._units.fold(text, labels)
            folded = Folded(name_of_part(check_metric_name(name), labels), convert)
            if len(self._names) >= _MOST_NAMES:
                self._names.clear()
            self._names[key] = folded
        return folded
