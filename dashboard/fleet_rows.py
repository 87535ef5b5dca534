"""Rows of the fleet for tables: where a GPU is, its order, and filters by what the URL says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from api.fleet import select_slots
from inventory.fleet import Fleet

Rows = NDArray[np.intp]
# The filters of the pages, in the order of their fields.
FILTERS = ("model", "namespace", "hostname")


class Place(NamedTuple):
    """Where a GPU is. ``slot`` is -1 where unknown."""

    host: str
    slot: int
    id: str


def place(fleet: Fleet, row: int) -> Place:
    """The place of one row."""
    return Place(fleet.hosts[fleet.host[row]].name, int(fleet.slot[row]), fleet.ids[row])


def chosen(fleet: Fleet, query: Mapping[str, str]) -> NDArray[np.bool_]:
    """Which rows pass the filters ``model``, ``namespace`` and ``hostname`` of a URL. An empty one lets everything pass."""
    return select_slots(
        fleet,
        hostnames=given(query, "hostname"),
        models=given(query, "model"),
        namespaces=given(query, "namespace"),
        pods=(),
    )


def given(query: Mapping[str, str], name: str) -> tuple[str, ...]:
    """The values of a filter; none where it is left out or empty."""
    value = query.get(name, "")
    return (value,) if value else ()


class Order(NamedTuple):
    """The column by which a table is ordered, and the direction."""

    key: str
    descending: bool


def order_of(text: str, default: str, keys: Sequence[str]) -> Order:
    """What ``sort=-temperature`` asks for; the default for a column that there is not."""
    key = text.removeprefix("-")
    if key not in keys:
        text, key = default, default.removeprefix("-")
    return Order(key, text.startswith("-"))


def ordered(rows: Rows, values: NDArray[np.float64], *, descending: bool) -> Rows:
    """The rows in the order of their values. Unknown ones come last in either order; equal ones keep theirs."""
    keys = -values[rows] if descending else values[rows]
    return rows[np.argsort(keys, kind="stable")]


def group_median(values: NDArray[np.float64], groups: NDArray[np.intp]) -> NDArray[np.float64]:
    """For each row the median of the known values of its group; NaN where there is none."""
    medians = np.full(len(values), np.nan)
    for group in np.unique(groups):
        mine = groups == group
        known = values[mine & ~np.isnan(values)]
        if len(known):
            medians[mine] = np.median(known)
    return medians


def codes(names: Sequence[str]) -> tuple[list[str], NDArray[np.intp]]:
    """The different names, sorted, and each row's number among them."""
    unique = sorted(set(names))
    numbers = {name: number for number, name in enumerate(unique)}
    return unique, np.fromiter((numbers[name] for name in names), np.intp, len(names))


class FilterChoice(NamedTuple):
    """A filter as a form shows it."""

    name: str
    label: str
    value: str
    options: list[str]


def choices(fleet: Fleet, query: Mapping[str, str]) -> list[FilterChoice]:
    """The filters of a page, with what there is to choose. A value that is not there any more stays, so that it shows."""
    found = {
        "model": sorted({name for name in fleet.models if name}),
        "namespace": sorted({name for name in fleet.namespaces if name}),
        "hostname": [host.name for host in fleet.hosts],
    }
    result = []
    for name, label in zip(FILTERS, ("Model", "Namespace", "Host"), strict=True):
        value = query.get(name, "")
        options = found[name] if not value or value in found[name] else [*found[name], value]
        result.append(FilterChoice(name, label, value, options))
    return result
