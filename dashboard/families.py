"""The catalogue's metrics in families, for pages that list all that a GPU gives."""

from __future__ import annotations

from collections.abc import Iterable

from readings.catalogue import CATALOGUE, whole_of

OTHER = "Not in the catalogue"

# Each metric belongs to the first family with one of these in its name.
_FAMILIES = (
    ("Health", ("HEALTH", "RECOVERY_ACTION", "INFOROM", "UNREPAIRABLE")),
    ("Errors and memory repair", ("XID", "ECC_", "RETIRED", "REMAP")),
    ("NVLink, PCIe and fabric", ("NVLINK", "PCIE", "FABRIC")),
    ("Throttling", ("VIOLATION", "CLOCKS_EVENT", "CLOCK_EVENTS")),
    ("Profiling", ("_PROF_",)),
    ("Temperature and cooling", ("TEMP", "FAN_")),
    ("Power and energy", ("POWER", "ENERGY")),
    ("Clocks", ("_CLOCK", "PSTATE")),
    ("Memory", ("_FB_",)),
    ("Utilisation", ("_UTIL",)),
    ("Settings", ("LICENSE", "PERSISTENCE")),
)
# People look at use first, and at what is set last.
_ORDER = (
    "Utilisation", "Profiling", "Memory", "Temperature and cooling", "Power and energy", "Clocks", "Throttling",
    "Errors and memory repair", "Health", "NVLink, PCIe and fabric", "Settings", OTHER,
)  # fmt: skip


def family_of(metric_name: str) -> str:
    """The family of a metric or of its part."""
    name = whole_of(metric_name)
    if name not in CATALOGUE:
        return OTHER
    return next((family for family, words in _FAMILIES if any(word in name for word in words)), OTHER)


def by_family(metric_names: Iterable[str]) -> dict[str, list[str]]:
    """The metrics by family, in the order in which people look, and within a family as in the catalogue."""
    place = {name: number for number, name in enumerate(CATALOGUE)}
    families: dict[str, list[str]] = {family: [] for family in _ORDER}
    for name in sorted(metric_names, key=lambda name: (place.get(whole_of(name), len(place)), name)):
        families[family_of(name)].append(name)
    return {family: names for family, names in families.items() if names}


def title_of(metric_name: str) -> str:
    """The title that people see, with the part that it is about: ``NVLink bandwidth, nvlink 3``."""
    whole = whole_of(metric_name)
    part = metric_name.removeprefix(whole).removeprefix(":").replace(":", " ")
    title = CATALOGUE[whole].title if whole in CATALOGUE else whole
    return f"{title}, {part}" if part else title
