"""Finds the chart library's two files in the Python package that ships them, as ``uplot/…``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.contrib.staticfiles.finders import BaseFinder
from django.core.files.storage import FileSystemStorage, Storage

FILES = ("uplot.iife.min.js", "uplot.min.css")
_PREFIX = "uplot"


def folder() -> Path:
    """Where the package keeps the files. Does not import it: only its files are wanted."""
    spec = find_spec("youplot")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the package youplot is not installed: it ships uPlot, which draws the charts")
    return Path(spec.submodule_search_locations[0]) / "vendor"


class _Storage(FileSystemStorage):
    prefix = _PREFIX


class UplotFinder(BaseFinder):
    """Offers the files that the pages load, and nothing else of the package."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._storage = _Storage(location=str(folder()))

    def find(self, path: str, find_all: bool = False, **kwargs: Any) -> Any:
        """The file's path, or an empty list; with ``find_all`` a list."""
        prefix, _, name = path.partition("/")
        found = [str(folder() / name)] if prefix == _PREFIX and name in FILES else []
        return found if find_all or not found else found[0]

    def list(self, ignore_patterns: Iterable[str] | None) -> Iterator[tuple[str, Storage]]:
        """Each file's name and storage."""
        for name in FILES:
            yield name, self._storage
