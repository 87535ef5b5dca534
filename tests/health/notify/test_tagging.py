"""The tags of what events are about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from health.models import Event
from health.notify.tagging import tags_by_event
from inventory.models import GPU, Host
from tests.health.building import NOON

SEEN = {"first_seen": NOON, "last_seen": NOON}


@pytest.mark.django_db
def test_the_nearest_tag_counts(django_assert_num_queries: Callable[..., Any]) -> None:
    host = Host.objects.create(name="node-1", tags={"rack": "r1", "team": "hpc", "level": 3}, **SEEN)
    GPU.objects.create(id="GPU-1", uuid="GPU-1", host=host, tags={"team": "ml"}, **SEEN)
    GPU.objects.create(id="GPU-1:7", uuid="GPU-1", mig_id="7", host=host, tags={"rack": "x"}, **SEEN)
    events = [
        Event(pk=1, entity_kind="gpu", entity="GPU-1:7", hostname="node-1"),
        Event(pk=2, entity_kind="gpu", entity="GPU-2", hostname="node-1"),
        Event(pk=3, entity_kind="host", entity="node-2", hostname="node-2"),
        Event(pk=4, entity_kind="fleet"),
    ]
    with django_assert_num_queries(2):
        found = tags_by_event(events)
    assert found[1] == {"rack": "x", "team": "ml", "level": "3"}
    assert found[2] == {"rack": "r1", "team": "hpc", "level": "3"}
    assert found[3] == found[4] == {}
