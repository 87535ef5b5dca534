"""Which host a GPU was in, for readings that the server holds twice.

A description change (host, index, device or model) starts a new series. When a reading is written again with another
description, the old series keeps its copy, so the store chooses between them when it reads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from stores.base import HostLookup


def hosts_at(lookup: HostLookup | None, moments: Collection[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """The host of each GPU at each time, for moments that an assignment covers. Of several, the last to start wins."""
    if lookup is None or not moments:
        return {}
    times = [time_ns for _, time_ns in moments]
    by_gpu: dict[str, list[tuple[int, int | None, str]]] = defaultdict(list)
    for gpu, host, start_ns, end_ns in lookup({gpu for gpu, _ in moments}, min(times), max(times) + 1):
        by_gpu[gpu].append((start_ns, end_ns, host))
    hosts = {}
    for gpu, time_ns in moments:
        covering = [
            (start, host) for start, end, host in by_gpu[gpu] if start <= time_ns and (end is None or time_ns < end)
        ]
        if covering:
            hosts[gpu, time_ns] = max(covering)[1]
    return hosts
