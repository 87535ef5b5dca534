"""The main menu. An entry whose page does not exist is left out."""

from __future__ import annotations

from typing import NamedTuple

from django.urls import NoReverseMatch, reverse


class Entry(NamedTuple):
    """One entry: its label, its page's path, and whether it is the page that is shown."""

    label: str
    url: str
    current: bool


# The order of the menu. Usage has its place: its page comes with the health room.
_PAGES = ("fleet", "hosts", "events", "usage", "hot", "power", "explore", "pipeline")


def entries(current: str) -> list[Entry]:
    """The menu, with the entry ``current`` marked."""
    found = []
    for name in _PAGES:
        try:
            url = reverse(f"dashboard:{name}")
        except NoReverseMatch:
            continue
        found.append(Entry(name.capitalize(), url, name == current))
    return found
