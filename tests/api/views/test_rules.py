"""The table of rules: what each needs, and how often it opened."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from health.models import EventState
from health.rule_table import rules_now
from readings.catalogue import canonical_name
from stores.base import Store
from tests.api.conftest import Api
from tests.health.building import make_event

RULES = "/api/v1/rules"
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _plain_rules(settings: Settings) -> None:
    settings.HEALTH_RULES = ""


def test_every_rule_is_there_and_says_whether_it_has_data(api: Api, fleet: Store) -> None:
    body = api.get(RULES)
    found = {rule["name"]: rule for rule in body["data"]}
    assert list(found) == list(rules_now())
    assert body["count"] == len(found)
    missing = found["gpu_missing"]
    assert (missing["has_data"], missing["missing"], missing["action_text"]) == (
        True, [], rules_now()["gpu_missing"].action_text,
    )  # fmt: skip
    hot = found["temp_high"]
    assert (hot["has_data"], hot["missing"]) == (False, [canonical_name("DCGM_FI_DEV_GPU_TEMP")])
    assert "GPU_TEMP > 85" in hot["condition"]
    assert (hot["severity"], hot["entity"], hot["enabled"]) == ("critical", "gpu", True)


def test_how_often_each_rule_opened(api: Api, fleet: Store, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    now = timezone.now()
    make_event(entity="GPU-a", opened=now - 30 * DAY)
    make_event(entity="GPU-b", opened=now - DAY / 2)
    for number, age in enumerate((0.1, 0.9, 1.1, 6.9, 7.1)):
        opened = now - age * DAY
        make_event(entity=f"GPU-{number}", opened=opened, state=EventState.CLOSED, closed=opened)
    with django_assert_num_queries(7):  # four of the fleet, and three of the events
        found = {rule["name"]: rule for rule in api.get(RULES)["data"]}
    hot = found["temp_high"]
    assert (hot["open"], hot["opened_24h"], hot["opened_7d"]) == (2, 3, 5)
    assert (found["ecc_dbe"]["open"], found["ecc_dbe"]["opened_7d"]) == (0, 0)


def test_pages_and_a_page_for_people(api: Api, fleet: Store) -> None:
    assert [rule["name"] for rule in api.get(f"{RULES}?page_size=2&page=2")["data"]] == list(rules_now())[2:4]
    assert api.ask(RULES, accept="text/html").status_code == 200
