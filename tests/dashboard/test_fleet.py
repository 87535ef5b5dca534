"""dashboard.views.fleet: the first page."""

from __future__ import annotations

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from inventory.fleet import SlotState
from readings.model import PointBlock
from tests.dashboard.test_page import page_data
from tests.inventory.building import UTIL, block, fleet, gpu, save

pytestmark = pytest.mark.django_db


def test_the_first_page_is_the_fleet(client: Client) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert "<title>Fleet · GPU telemetry</title>" in response.content.decode()


def test_an_empty_fleet_says_what_to_run(client: Client) -> None:
    body = client.get("/").content.decode()
    assert "No GPU has reported yet" in body
    assert "make run" in body
    assert "--source dcgm" in body


def test_tiles_are_in_the_first_answer(client: Client) -> None:
    whole = fleet(80)
    save(PointBlock(whole.gpus, whole.metric_names, [point for point in whole.points if point[0] != 11]))
    body = client.get("/").content.decode()
    assert 'data-tile="reporting">79<' in body
    assert ">of 80<" in body
    assert '<span data-tile="missing" class="critical-text">1 missing</span>' in body
    assert 'data-tile="power">23.7<' in body
    assert "No GPU has reported yet" not in body


def test_a_missing_gpu_says_when_it_was_seen(client: Client) -> None:
    save(fleet(16))
    whole = fleet(16, 3600.0)
    save(PointBlock(whole.gpus, whole.metric_names, [point for point in whole.points if point[0] != 11]))
    gpus = page_data(client.get("/").content.decode())["fleet"]["gpus"]
    assert gpus["state"][11] == SlotState.MISSING
    assert gpus["last_seen"] == [None] * 11 + ["2025-07-18T20:42:34Z"] + [None] * 4


def test_memory_is_in_one_unit(client: Client) -> None:
    save(fleet(240))
    assert 'data-tile="memory-note">1.2 of 18.5 TiB<' in client.get("/").content.decode()


def test_a_small_fleet_comes_with_the_page_and_a_large_one_does_not(client: Client) -> None:
    save(fleet(16))
    assert page_data(client.get("/").content.decode())["fleet"]["counts"]["gpus"] == 16
    save(fleet(1008))
    assert "fleet" not in page_data(client.get("/").content.decode())


def test_filters_are_those_of_the_url(client: Client) -> None:
    save(
        block(gpu("GPU-a", namespace="red", pod="p"), 0, {UTIL: 10.0}),
        block(gpu("GPU-b", gpu_id=1), 0, {UTIL: 30.0}),
    )
    data = page_data(client.get("/?namespace=red&metric=nonsense").content.decode())
    assert data["fleet"]["counts"]["expected"] == 1
    assert data["fleet"]["gpus"]["value"] == [None]


def test_its_queries_do_not_grow_with_the_fleet(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    save(fleet(256))
    with django_assert_max_num_queries(15):
        client.get("/")
