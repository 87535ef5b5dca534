"""A progress bar for people at a terminal; nothing at all where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm


class Progress:
    """How far a source has been read, in bytes."""

    def __init__(self, bar: tqdm[Any] | None = None) -> None:
        self._bar = bar

    def at(self, position: int) -> None:
        """Show that everything before this byte has been read."""
        if self._bar is not None:
            self._bar.update(position - self._bar.n)


@contextmanager
def progress_bar(total: int, title: str) -> Iterator[Progress]:
    """A bar on standard error if that is a terminal; log lines then appear above it."""
    if not sys.stderr.isatty():
        yield Progress()
        return
    with (
        logging_redirect_tqdm(),
        tqdm(total=total, desc=title, unit="B", unit_scale=True, dynamic_ncols=True) as bar,
    ):
        yield Progress(bar)
