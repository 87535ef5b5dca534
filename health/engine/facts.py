"""What people decided about hosts and GPUs."""

from __future__ import annotations

import msgspec


class Facts(msgspec.Struct, frozen=True):
    """``expected``: how many GPUs a person said that a host has. Excused is what is in maintenance; retired is gone for good."""

    expected: dict[str, int] = {}
    excused_hosts: frozenset[str] = frozenset()
    excused_gpus: frozenset[str] = frozenset()
    retired_hosts: frozenset[str] = frozenset()
    retired_gpus: frozenset[str] = frozenset()
