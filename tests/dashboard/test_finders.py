"""dashboard.finders: the chart library comes from its package, unchanged."""

from __future__ import annotations

import hashlib

import pytest
from django.contrib.staticfiles import finders

from dashboard.finders import UplotFinder

# Of the files dist/uPlot.iife.min.js and dist/uPlot.min.css of uPlot 1.6.31, as its authors published it.
PUBLISHED = {
    "uplot.iife.min.js": "2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2",
    "uplot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_package_ships_what_uplots_authors_published(name: str) -> None:
    path = finders.find(f"uplot/{name}")
    assert isinstance(path, str)
    with open(path, "rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == PUBLISHED[name]


def test_nothing_else_of_the_package_is_offered() -> None:
    assert finders.find("uplot/__init__.py") is None
    assert finders.find("uplot/../figure.py") is None
    assert sorted(name for name, _ in UplotFinder().list([])) == sorted(PUBLISHED)
