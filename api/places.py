"""Places for heavy questions. A worker answers only a few of them at once, so that memory and threads are left for others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.conf import settings

from stores.base import TooBusy

# Rows that a page may skip before the question is heavy.
LIGHT_ROWS = 100_000


class Places:
    """The places of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = 0

    @contextmanager
    def question(self) -> Iterator[Callable[[], None]]:
        """Yields a function that takes a place, kept until the block ends. Calling it again does nothing. It raises TooBusy."""
        has_place = False

        def take() -> None:
            nonlocal has_place
            if has_place:
                return
            most = settings.QUERIES_AT_ONCE
            with self._lock:
                if self._taken >= most:
                    raise TooBusy(
                        f"{most} heavy questions are being answered, the most that one worker answers at once (QUERIES_AT_ONCE):"
                        " ask again later, for a shorter range or for fewer GPUs"
                    )
                self._taken += 1
            has_place = True

        try:
            yield take
        finally:
            if has_place:
                with self._lock:
                    self._taken -= 1


places = Places()
