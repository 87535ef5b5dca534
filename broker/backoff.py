"""Waits between attempts: exponential, with jitter, so that many clients do not come back in step."""

from __future__ import annotations

import random as random_module
from collections.abc import Callable, Iterator


def backoff(
    first: float = 0.1, factor: float = 2.0, most: float = 5.0, random: Callable[[], float] = random_module.random
) -> Iterator[float]:
    """Yields the seconds to wait before each next attempt, without end.

    The n-th wait is at most ``first * factor ** n``, capped at ``most``, and at least half of that. ``random`` returns
    numbers in [0, 1).
    """
    bound = min(first, most)
    while True:
        yield bound * (0.5 + 0.5 * random())
        bound = min(bound * factor, most)
