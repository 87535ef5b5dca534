"""dashboard.views.gpu: the page of a GPU."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from inventory.models import GPU, AssetState
from tests.dashboard.test_page import page_data
from tests.inventory.building import POWER, TEMP, USED, UTIL, block, fleet, gpu, save

pytestmark = pytest.mark.django_db

ID = "GPU-5fd4f087-86f3-7a43-b711-4771313afc50"
MOST_QUERIES = 15


def body_of(client: Client, path: str, status: int = 200) -> str:
    response = client.get(path)
    assert response.status_code == status
    return str(response.content.decode())


def tiles(body: str) -> dict[str, str]:
    """The text of each tile's value, by its name."""
    found = re.findall(r'tile-name">(.*?)</h2><p class="tile-value[^>]*>(.*?)</p>', body, re.DOTALL)
    return {name: " ".join(re.sub(r"<[^>]+>", "", value).split()) for name, value in found}


def test_it_says_what_and_where_the_gpu_is_and_its_values(client: Client) -> None:
    save(block(gpu(ID, namespace="ml", pod="train-1"), 0, {UTIL: 71.0, POWER: 689.457, TEMP: 64.0, USED: 51200.0}))
    body = body_of(client, f"/gpus/{ID}")
    assert "<title>host-1 · gpu 0 · 5fd4f087 · GPU telemetry</title>" in body
    for text in (ID, "NVIDIA H100 80GB HBM3", "535.129.03", "ml/train-1", 'href="/hosts/host-1"', "● reporting"):
        assert text in body
    assert tiles(body) == {
        "Utilisation": "71 %",
        "Memory used": "50 GiB",
        "Temperature": "64 °C",
        "Power": "689.5 W",
        "SM clock": "n/a",
        "Clock event reasons": "n/a",
        "Last XID": "n/a",
    }
    data = page_data(body)
    assert [each["name"] for each in data["has"]] == sorted([UTIL, POWER, TEMP, USED])
    assert data["id"] == ID


def test_a_page_has_few_queries_however_large_the_fleet(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    save(fleet(80))
    with django_assert_max_num_queries(MOST_QUERIES):
        body_of(client, "/gpus/GPU-0011")


def test_a_short_id_leads_to_the_whole_one_and_keeps_the_range(client: Client) -> None:
    save(block(gpu(ID), 0, {UTIL: 1.0}))
    for short in ("5fd4f087", "GPU-5fd4"):
        response = client.get(f"/gpus/{short}?range=6h")
        assert (response.status_code, response["Location"]) == (302, f"/gpus/{ID}?range=6h")


def test_an_ambiguous_id_lists_those_that_it_begins(client: Client) -> None:
    save(block(gpu("GPU-5fd4aaaa"), 0, {UTIL: 1.0}), block(gpu("GPU-5fd4bbbb", gpu_id=1), 0, {UTIL: 1.0}))
    body = body_of(client, "/gpus/5fd4", 300)
    assert 'href="/gpus/GPU-5fd4aaaa"' in body
    assert 'href="/gpus/GPU-5fd4bbbb"' in body


@pytest.mark.parametrize("name", ["GPU-none", "%3Cscript%3E", "a" * 300, "%00"])
def test_an_unknown_one_is_not_found_in_the_looks_of_the_pages(client: Client, name: str) -> None:
    body = body_of(client, f"/gpus/{name}", 404)
    assert "There is no GPU" in body
    assert "<script>" not in body
    assert 'id="search"' in body


def test_what_a_silent_gpu_said_last_is_no_value_of_now(client: Client) -> None:
    save(block(gpu(ID), -400, {UTIL: 100.0}), block(gpu("GPU-b", gpu_id=1), 0, {UTIL: 1.0}))
    body = body_of(client, f"/gpus/{ID}")
    assert "⬣ missing" in body
    assert tiles(body)["Utilisation"].startswith("stale")


def test_a_metric_that_only_others_have_is_absent_in_the_table(client: Client) -> None:
    save(block(gpu(ID), 0, {UTIL: 5.0}), block(gpu("GPU-b", gpu_id=1), 0, {TEMP: 50.0}))
    row = re.search(r"GPU temperature</th><td class=\"num\">(.*?)</td>", body_of(client, f"/gpus/{ID}"))
    assert row is not None
    assert "n/a" in row[1]


def test_a_board_of_instances_shows_them_and_what_they_make(client: Client) -> None:
    save(
        block(gpu(ID), 0, {POWER: 300.0}),
        block(gpu(ID, mig_id="1", mig_profile="3g.40gb", namespace="web", pod="serve-1"), 0, {UTIL: 20.0, USED: 100.0}),
        block(gpu(ID, mig_id="2", mig_profile="3g.40gb"), 0, {UTIL: 60.0, USED: 200.0}),
    )
    body = body_of(client, f"/gpus/{ID}")
    assert tiles(body)["Utilisation"] == "40 %"
    assert tiles(body)["Memory used"] == "300 MiB"
    assert f'href="/gpus/{ID}:1"' in body
    assert "web/serve-1" in body
    instance = body_of(client, f"/gpus/{ID}:2")
    assert tiles(instance)["Utilisation"] == "60 %"
    assert "MIG 3g.40gb" in instance


def test_a_retired_gpu_says_so(client: Client) -> None:
    save(block(gpu(ID), 0, {UTIL: 5.0}))
    GPU.objects.update(asset_state=AssetState.RETIRED, owner="ops <b>", notes="1 < 2", tags={"rack": "r<1"})
    body = body_of(client, f"/gpus/{ID}")
    for text in ("retired", "ops &lt;b&gt;", "1 &lt; 2", "rack: r&lt;1"):
        assert text in body


def test_a_range_after_its_last_reading_offers_its_last_hour(client: Client) -> None:
    save(block(gpu(ID), 0, {UTIL: 5.0}))
    body = body_of(client, f"/gpus/{ID}?start=2025-07-20T00:00:00Z&end=2025-07-20T01:00:00Z")
    assert "?start=2025-07-18T19:42:34Z&amp;end=2025-07-18T20:42:35Z" in body
    assert "Show its last hour" not in body_of(client, f"/gpus/{ID}")


def test_the_calls_to_copy_are_those_of_the_api(client: Client) -> None:
    save(block(gpu(ID), 0, {UTIL: 5.0}))
    body = body_of(client, f"/gpus/{ID}")
    assert f"http://testserver/api/v1/gpus/{ID}/series?metric={UTIL}" in body
    assert " style=" not in body


def test_what_it_links_to_is_this_gpu_whatever_its_id(client: Client, admin_client: Client) -> None:
    save(block(gpu("GPU_2Fa/b"), 0, {UTIL: 1.0}))
    body = body_of(client, "/gpus/GPU_2Fa%2Fb")
    (edit,) = re.findall(r'href="(/admin/inventory/gpu/[^"]*)"', body)
    assert "GPU_2Fa/b" in body_of(admin_client, edit)
    (readings,) = re.findall(r'data-raw-csv href="([^"]*)"', body)
    # Whoever follows the link opens the file in a spreadsheet, which takes some names for formulas.
    assert readings.endswith("&amp;format=csv&amp;csv_safe=true")
