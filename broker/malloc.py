"""Keeps the memory that the broker reuses all the time."""

from __future__ import annotations

import ctypes
import gc
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_KEPT = 4 << 20
_MOST_FREE = 8 << 20


def keep_memory() -> None:
    """Makes glibc keep up to 8 MiB of freed memory for the next received bytes and the next batch.

    By default it returns a freed block of that size to the kernel at once and faults in new pages for the next, which takes
    up to half the time of a broker under load. Does nothing with another C library.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
            mallopt(_M_TRIM_THRESHOLD, _MOST_FREE)
    # Everything loaded by now stays: the garbage collector need not scan it again.
    gc.collect()
    gc.freeze()
