"""dashboard.views.usage: who holds GPUs without using them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries, Settings

from dashboard.views.usage import funnel, grouping, line_of, share
from health.usage.packing import FIGURES, HOUR_NS, Figure
from health.usage.rows import UsageRow
from inventory.models import Host
from readings.times import SECOND
from tests.dashboard.reading import html, part, text_of
from tests.health.usage.filling import Watched, add_to_inventory
from tests.health.usage.reckoning import LIMIT, POWER, SM, UTIL
from tests.health.usage.test_meter import gpu_of

pytestmark = pytest.mark.django_db
MINUTE = 60 * SECOND


@pytest.fixture
def used() -> Callable[[float], None]:
    """Fills the last hours: one GPU busy, one held and idle, one free."""

    def fill(hours: float) -> None:
        begin = (time.time_ns() - int(hours * HOUR_NS)) // MINUTE * MINUTE
        gpus = [
            gpu_of(1, namespace="ml", pod="train"),
            gpu_of(2, namespace="web", pod="serve"),
            gpu_of(3, model_name="T4"),
        ]
        watched = Watched()
        for at in range(begin, begin + int(hours * HOUR_NS), 5 * MINUTE):
            power = {POWER: 300.0, LIMIT: 600.0}
            watched.send([(gpu, at, {UTIL: 90.0 * (gpu.pod == "train"), SM: 0.5, **power}) for gpu in gpus])
        watched.commit()
        add_to_inventory(gpus, time.time_ns())

    return fill


def test_the_idle_come_first(client: Client, used: Callable[[float], None]) -> None:
    used(10)
    page = html(client, "/usage")
    groups = part(page, "groups")
    assert groups.index("web") < groups.index("ml")
    assert "web 1 9.9 9.9 100.0 % 0.0 % 50.0 %" in groups
    assert "Nobody held the GPUs for 9.92 h" in groups
    tiles = part(page, "tiles")
    assert "Held but idle 9.92 h 50.0 % of what is held · like 1.0 GPUs idle all the time" in tiles
    assert "Its cost" not in tiles
    whole = part(page, "whole")
    assert "exact to the nanosecond" in whole
    assert "of the time has readings and is known" in whole
    assert "Idle is below 5 % for 15 minutes or more; below 10 % it would be 9.92 h" in whole


@pytest.mark.parametrize(
    ("by", "first"),
    [
        ("pod", "web/serve 1"),
        ("host", "node-0"),
        ("gpu", "2 1 1.9 1.9 100.0 %"),
        ("model", "H100 2"),
        ("owner", "ann 1"),
        ("tag:team", "red 1"),
    ],
)
def test_it_groups_by_what_is_asked_for(client: Client, used: Callable[[float], None], by: str, first: str) -> None:
    used(2)
    Host.objects.filter(name="node-0").update(owner="ann", tags={"team": "red"})
    page = html(client, f"/usage?by={by}")
    assert f"By {by}" in part(page, "groups")
    assert first in part(page, "groups")
    assert f"<option selected>{by}</option>" in page


def test_filters_and_range_are_in_the_links(client: Client, used: Callable[[float], None]) -> None:
    used(2)
    page = html(client, "/usage?by=pod&namespace=web&range=24h")
    groups = part(page, "groups")
    assert "web/serve" in groups
    assert "ml/train" not in groups
    [link, *_] = re.findall(r'href="([^"]+format=csv[^"]*)" download>CSV with', page)
    answer = client.get(unescape(link))
    assert answer["Content-Type"].startswith("text/csv")
    rows = b"".join(answer).decode().splitlines()
    assert len(rows) == 2
    assert ",web,serve," in rows[1]
    assert 'aria-current="true">24h' in page


def test_costs_stand_there_where_prices_are_set(
    client: Client, used: Callable[[float], None], settings: Settings, tmp_path: Path
) -> None:
    used(10)
    path = tmp_path / "prices.toml"
    path.write_text('currency = "EUR"\nenergy_per_kwh = 0.2\nco2_grams_per_kwh = 400\n[gpu_hour]\nH100 = 2.5\n')
    settings.USAGE_PRICES = str(path)
    page = html(client, "/usage")
    assert "Its cost 24.8 EUR of 49.6 EUR for what is held" in part(page, "tiles")
    assert "24.79 24.79" in part(page, "groups")
    assert "Costs in EUR at today’s prices" in part(page, "groups")
    assert "of CO₂" in part(page, "groups")
    path.write_text("currency = 1")
    page = html(client, "/usage")
    assert "Costs are not shown" in part(page, "whole")
    assert "Its cost" not in part(page, "tiles")


def test_little_known_time_is_said_first(client: Client) -> None:
    begin = time.time_ns() - 10 * HOUR_NS
    watched = Watched()
    gpu = gpu_of(1, namespace="ml", pod="train")
    for minute in range(60):
        watched.send([(gpu, begin + minute * MINUTE, {UTIL: 0.0})])
    watched.commit()
    add_to_inventory([gpu], time.time_ns())
    assert re.search(r"Look at this with care: only 9\.\d % of the time", part(html(client, "/usage"), "whole"))


def test_before_anything_is_counted_it_says_what_counts(client: Client) -> None:
    assert "make run" in text_of(html(client, "/usage"))
    add_to_inventory([gpu_of(1)], time.time_ns())
    text = text_of(html(client, "/usage"))
    assert "Nothing is counted yet" in text
    assert "manage.py watch" in text


def test_nonsense_in_the_url_shows_the_default(client: Client, used: Callable[[float], None]) -> None:
    used(1)
    page = html(client, "/usage?by=nonsense&range=nonsense&sort=nonsense")
    assert "By namespace" in part(page, "groups")
    assert 'aria-current="true">7d' in page
    assert grouping("tag:") == ("namespace", "")
    assert grouping("tag:a b") == ("tag", "a b")


def test_the_bar_is_all_the_time() -> None:
    held, free = [0] * FIGURES, [0] * FIGURES
    held[Figure.KNOWN], held[Figure.ACTIVE], held[Figure.IDLE] = 6 * HOUR_NS, 3 * HOUR_NS, 2 * HOUR_NS
    held[Figure.MEASURED], held[Figure.EFFECTIVE] = 6 * HOUR_NS, HOUR_NS
    free[Figure.KNOWN] = 3 * HOUR_NS
    parts = funnel(UsageRow((), held=held, free=free, unknown_ns=HOUR_NS))
    assert [(each.name, each.hours) for each in parts] == [
        ("effective", 1.0), ("active", 2.0), ("pause", 1.0), ("idle", 2.0), ("free", 3.0), ("unknown", 1.0),
    ]  # fmt: skip
    assert sum(each.width for each in parts) == pytest.approx(1000)
    assert funnel(UsageRow(()))[0].share is None
    assert line_of(UsageRow(("",)), None).is_named is False
    assert (share(1, 4), share(1, 0)) == (25.0, None)


def test_a_page_is_a_handful_of_queries(
    client: Client, used: Callable[[float], None], django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    used(1)
    html(client, "/usage")
    # The fleet is read three times where nothing is shared between questions, as in tests.
    with django_assert_max_num_queries(14):
        html(client, "/usage?by=pod")
