"""When to try again what failed."""

from __future__ import annotations

import random

# Seconds.
FIRST_RETRY, LONGEST_RETRY = 1.0, 900.0


def retry_wait(failures: int) -> float:
    """Seconds to wait after a failure with so many others before it: twice as long each time, with jitter."""
    bound = min(FIRST_RETRY * 2.0 ** min(failures, 30), LONGEST_RETRY)
    return bound * random.uniform(0.75, 1.0)  # noqa: S311 - no secret
