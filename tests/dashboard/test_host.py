"""dashboard.views.host: the page of a host."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from inventory.models import AssetState, Host
from readings.model import PointBlock
from tests.dashboard.test_gpu import MOST_QUERIES, body_of, tiles
from tests.dashboard.test_page import page_data
from tests.inventory.building import POWER, TEMP, USED, UTIL, block, fleet, gpu, save

pytestmark = pytest.mark.django_db


def test_it_shows_its_gpus_and_their_sum(client: Client) -> None:
    save(
        block(gpu("GPU-aaaa", namespace="ml", pod="train-1"), 0, {UTIL: 100.0, POWER: 600.0, TEMP: 70.0, USED: 1024.0}),
        block(gpu("GPU-bbbb", gpu_id=1), 0, {UTIL: 0.0, POWER: 100.0, TEMP: 30.0, USED: 1024.0}),
    )
    body = body_of(client, "/hosts/host-1")
    assert tiles(body) == {
        "GPUs reporting": "2 of 2",
        "Utilisation": "50 %",
        "Power": "700 W",
        "Memory used": "2,048 MiB",
        "Hottest": "70 °C",
    }
    for text in ('href="/gpus/GPU-aaaa"', "ml/train-1", "535.129.03", "● reporting"):
        assert text in body
    assert page_data(body)["slots"] == [{"id": "GPU-aaaa", "slot": 0}, {"id": "GPU-bbbb", "slot": 1}]


@pytest.mark.parametrize(
    "name", ["host/with slash", "two words", "<b>bold</b>", "100% & more?", "ünï-東京", "it's #1", "a:b@c"]
)
def test_a_name_may_have_any_character(client: Client, name: str) -> None:
    save(block(gpu("GPU-aaaa", hostname=name), 0, {UTIL: 1.0}))
    listed = body_of(client, "/hosts")
    path = f"/hosts/{quote(name, safe='~:@')}"
    assert f'href="{path}"' in listed
    body = body_of(client, path)
    assert page_data(body)["host"] == name
    assert "<b>bold" not in body
    assert f'href="{path}"' in body_of(client, "/gpus/GPU-aaaa")


def test_a_page_has_few_queries_however_large_the_fleet(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    save(fleet(160))
    with django_assert_max_num_queries(MOST_QUERIES):
        body_of(client, "/hosts/host-003")


def test_a_slot_where_none_was_ever_seen_is_a_row_that_looks_missing(client: Client) -> None:
    whole = fleet(80)
    save(PointBlock(whole.gpus, whole.metric_names, [point for point in whole.points if point[0] != 11]))
    body = body_of(client, "/hosts/host-001")
    assert "slot 3 · never seen" in body
    assert "⬣ missing" in body
    assert tiles(body)["GPUs reporting"] == "7 of 8"
    assert len(page_data(body)["slots"]) == 7


def test_people_s_notes_and_states_are_shown(client: Client) -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    Host.objects.update(
        asset_state=AssetState.MAINTENANCE, owner="ops", notes="<i>new fan</i>", tags={"rack": "r12"}, expected_gpus=8
    )
    body = body_of(client, "/hosts/host-1")
    for text in ("■ in maintenance", "owner ops", "rack: r12", "&lt;i&gt;new fan&lt;/i&gt;", "/admin/inventory/host/"):
        assert text in body
    assert "learned" not in body


@pytest.mark.parametrize("name", ["nowhere", "%3Cb%3E", "a" * 300, "%00"])
def test_an_unknown_host_is_not_found_in_the_looks_of_the_pages(client: Client, name: str) -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    body = body_of(client, f"/hosts/{name}", 404)
    assert "There is no host" in body
    assert "<b>" not in body.partition("<main")[2]
    assert 'href="/hosts"' in body
