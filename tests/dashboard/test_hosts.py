"""dashboard.views.hosts: the list of hosts."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from inventory.models import Host
from readings.model import PointBlock
from tests.dashboard.test_gpu import MOST_QUERIES, body_of
from tests.dashboard.test_page import page_data
from tests.inventory.building import POWER, TEMP, UTIL, block, fleet, gpu, save

pytestmark = pytest.mark.django_db


@pytest.fixture
def hosts(db: None) -> None:
    """Four hosts: cold reports, hot is the hottest, gone is stale, half has lost a GPU."""
    save(
        block(gpu("GPU-1", hostname="cold"), 0, {UTIL: 100.0, TEMP: 40.0, POWER: 500.0}),
        block(gpu("GPU-2", hostname="hot"), 0, {UTIL: 10.0, TEMP: 80.0}),
        block(gpu("GPU-3", hostname="gone"), -400, {UTIL: 50.0, TEMP: 90.0}),
        block(gpu("GPU-4", hostname="half"), 0, {UTIL: 20.0, TEMP: 50.0, POWER: 100.0}),
        block(gpu("GPU-5", hostname="half", gpu_id=1), -400, {UTIL: 20.0}),
    )


def names(body: str) -> list[str]:
    return re.findall(r'<th scope="row"><a class="link" href="/hosts/([^"]+)"', body)


@pytest.mark.usefixtures("hosts")
def test_the_worst_come_first(client: Client) -> None:
    body = body_of(client, "/hosts")
    assert names(body) == page_data(body)["hosts"] == ["half", "gone", "hot", "cold"]
    for text in ("⬣ 1 missing", "▲ 1 stale", "1 of 2", "80 <small"):
        assert text in body


@pytest.mark.usefixtures("hosts")
@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("name", ["cold", "gone", "half", "hot"]),
        ("-utilisation", ["cold", "half", "hot", "gone"]),
        ("power", ["half", "cold", "gone", "hot"]),  # what is unknown comes last, either way
        ("-power", ["cold", "half", "gone", "hot"]),
        ("-seen", ["gone", "cold", "half", "hot"]),
        ("nonsense", ["half", "gone", "hot", "cold"]),
    ],
)
def test_it_can_be_sorted_by_each_column(client: Client, sort: str, expected: list[str]) -> None:
    assert names(body_of(client, f"/hosts?sort={sort}")) == expected


@pytest.mark.usefixtures("hosts")
def test_a_head_says_the_order_and_turns_it(client: Client) -> None:
    body = body_of(client, "/hosts?sort=-power&q=h")
    assert re.search(
        r'<th scope="col" aria-sort="descending"[^>]*><a href="/hosts\?sort=power&amp;q=h">Power</a>', body
    )
    assert body.count("aria-sort") == 1


@pytest.mark.usefixtures("hosts")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("q=ho", ["hot"]),
        ("q=H100+COLD", ["cold"]),
        ("q=rack:r12", ["half"]),
        ("q=ml-team", ["gone"]),
        ("q=nothing", []),
        ("state=missing", ["half"]),
        ("state=stale", ["gone"]),
        ("state=reporting", ["hot", "cold"]),
    ],
)
def test_filters(client: Client, query: str, expected: list[str]) -> None:
    Host.objects.filter(name="half").update(tags={"rack": "r12"})
    Host.objects.filter(name="gone").update(owner="ml-team")
    assert names(body_of(client, f"/hosts?{query}")) == expected


def test_pages_have_50_hosts_and_few_queries(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    save(fleet(8 * 60))
    with django_assert_max_num_queries(MOST_QUERIES):
        first = body_of(client, "/hosts?sort=name")
    second = body_of(client, "/hosts?sort=name&page=2")
    assert [len(names(body)) for body in (first, second)] == [50, 10]
    assert 'href="/hosts?sort=name&amp;page=2" rel="next"' in first
    assert 'href="/hosts?sort=name" rel="prev"' in second
    assert names(body_of(client, "/hosts?sort=name&page=99")) == names(second)
    assert names(body_of(client, "/hosts?sort=name&page=x")) == names(first)


def test_an_empty_fleet_teaches_the_next_command(client: Client) -> None:
    body = body_of(client, "/hosts")
    assert "make run" in body
    assert "manage.py stream --source dcgm" in body


def test_names_and_notes_are_escaped(client: Client) -> None:
    save(PointBlock([gpu("GPU-1", hostname="<b>x</b>")], [UTIL], [(0, 1_752_871_354_000_000_000, [1.0])]))
    Host.objects.update(owner="<i>o</i>", tags={"<u>": "<s>"})
    main = body_of(client, "/hosts?q=<u>").partition("<main")[2]
    assert not re.search(r"<(b|i|u|s)>", main)
