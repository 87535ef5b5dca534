"""The facts are what people decided in the inventory."""

from __future__ import annotations

import pytest
from pytest_django import DjangoAssertNumQueries

from health.watch.facts import load_facts
from inventory.models import GPU, AssetState, Host
from tests.health.building import NOON

pytestmark = pytest.mark.django_db


def test_they_name_what_is_expected_excused_and_retired(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    for name, state, expected in (
        ("plain", "active", None),
        ("eight", "active", 8),
        ("shop", "maintenance", None),
        ("gone", "retired", 4),
    ):
        Host.objects.create(
            name=name, first_seen=NOON, last_seen=NOON, asset_state=AssetState(state), expected_gpus=expected
        )
    for name, state in (("GPU-1", "active"), ("GPU-2", "maintenance"), ("GPU-3", "retired")):
        GPU.objects.create(id=name, uuid=name, first_seen=NOON, last_seen=NOON, asset_state=state)
    with django_assert_num_queries(2):
        facts = load_facts()
    assert facts.expected == {"eight": 8, "gone": 4}
    assert (facts.excused_hosts, facts.retired_hosts) == (frozenset({"shop"}), frozenset({"gone"}))
    assert (facts.excused_gpus, facts.retired_gpus) == (frozenset({"GPU-2"}), frozenset({"GPU-3"}))
