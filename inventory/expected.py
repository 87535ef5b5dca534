"""How many GPUs a host should have, where nobody said: as many as others of its model have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

# How many hosts of a model must agree, and how far, before their number of GPUs is expected of the others.
FEWEST_HOSTS, AGREEMENT = 5, 0.9


def learned_counts(hosts: Sequence[tuple[str, int]]) -> dict[str, int]:
    """How many GPUs a host of each model has, where enough hosts agree. ``hosts`` are their models and numbers of GPUs."""
    counts: dict[str, Counter[int]] = {}
    for model, count in hosts:
        if count:
            counts.setdefault(model, Counter())[count] += 1
    learned = {}
    for model, sizes in counts.items():
        size, agreeing = sizes.most_common(1)[0]
        if sizes.total() >= FEWEST_HOSTS and agreeing >= AGREEMENT * sizes.total():
            learned[model] = size
    return learned
