"""What people decided about hosts and GPUs, from the inventory."""

from __future__ import annotations

from health.engine.facts import Facts
from inventory.models import GPU, AssetState, Host


def load_facts() -> Facts:
    """The facts as they are now: two queries, however large the fleet is. Raises DatabaseError."""
    expected: dict[str, int] = {}
    hosts: dict[str, set[str]] = {AssetState.MAINTENANCE: set(), AssetState.RETIRED: set()}
    decided = Host.objects.exclude(asset_state=AssetState.ACTIVE, expected_gpus=None)
    for name, state, given in decided.values_list("name", "asset_state", "expected_gpus"):
        if given is not None:
            expected[name] = given
        if state in hosts:
            hosts[state].add(name)
    gpus: dict[str, set[str]] = {AssetState.MAINTENANCE: set(), AssetState.RETIRED: set()}
    for gpu_id, state in GPU.objects.exclude(asset_state=AssetState.ACTIVE).values_list("pk", "asset_state"):
        if state in gpus:
            gpus[state].add(gpu_id)
    return Facts(
        expected,
        frozenset(hosts[AssetState.MAINTENANCE]),
        frozenset(gpus[AssetState.MAINTENANCE]),
        frozenset(hosts[AssetState.RETIRED]),
        frozenset(gpus[AssetState.RETIRED]),
    )
