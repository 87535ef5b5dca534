"""What it costs to read inputs of growing size, in CPU seconds of this process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def cost_of(read: Callable[[T], Any], inputs: Sequence[T], least: float = 0.002) -> list[float]:
    """The CPU seconds that each input takes, the best of three; at least ``least``, under which there is only noise."""
    return [max(least, min(_seconds(read, each) for _ in range(3))) for each in inputs]


def _seconds(read: Callable[[T], Any], given: T) -> float:
    began = time.process_time()
    with contextlib.suppress(ValueError):
        read(given)
    return time.process_time() - began
