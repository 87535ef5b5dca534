"""Answers that those who ask at the same time share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from django.conf import settings

_T = TypeVar("_T")


class SharedAnswer(Generic[_T]):
    """The result of ``make``, made anew when it is FLEET_SECONDS old. It may be asked for from any thread."""

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._found: tuple[float, _T] | None = None

    def now(self) -> _T:
        """The result, as of at most FLEET_SECONDS ago. Raises what ``make`` raises."""
        with self._lock:  # those who ask meanwhile wait for the same answer
            now = time.monotonic()
            if self._found is None or now - self._found[0] >= settings.FLEET_SECONDS:
                self._found = now, self._make()
            return self._found[1]

    def forget(self) -> None:
        """Make it anew for the next who asks: something that it is made of has changed."""
        with self._lock:
            self._found = None
