"""How long to wait between attempts: longer each time, with jitter, so that many clients do not come back in step."""

from __future__ import annotations

import random as random_module
from collections.abc import Callable, Iterator


def backoff(
    first: float = 0.1, factor: float = 2.0, most: float = 5.0, random: Callable[[], float] = random_module.random
) -> Iterator[float]:
    """Seconds to wait before each next attempt, without end.

    The bound of the n-th wait is ``first * factor ** n``, ``most`` at most; the wait lies between half of it and all of it.
    ``random`` gives numbers in [0, 1).
    """
    bound = min(first, most)
    while True:
        yield bound * (0.5 + 0.5 * random())
        bound = min(bound * factor, most)
