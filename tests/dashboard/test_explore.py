"""dashboard.views.explore: the form, its errors, and the links to the same answer."""

from __future__ import annotations

import re
from html import unescape

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from api.views.query import AGGREGATES
from dashboard.views.explore import aggregates_of, metric_choice, metric_choices
from readings.catalogue import CATALOGUE
from stores.base import Store
from tests.dashboard.reading import html, text_of
from tests.dashboard.test_page import page_data
from tests.inventory.building import POWER, UTIL, block, gpu, save

pytestmark = pytest.mark.django_db
XID = "DCGM_FI_DEV_XID_ERRORS"
ENERGY = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"


def error_of(body: str, field: str) -> str:
    match = re.search(rf'data-error="{field}"[^>]*>(.*?)</small>', body, re.DOTALL)
    assert match is not None
    return text_of(match[1])


def test_aggregates_that_mean_nothing_are_not_offered() -> None:
    assert set(aggregates_of(ENERGY)) == set(AGGREGATES)
    assert set(aggregates_of(UTIL)) == {*AGGREGATES} - {"increase"}
    assert aggregates_of(XID)[0] == "last"
    assert not {"mean", "sum", "increase"} & set(aggregates_of(XID))
    assert aggregates_of("nobody_knows_it")[0] == "mean"


def test_what_the_fleet_sends_comes_first() -> None:
    seen, others = metric_choices([UTIL, "DCGM_FI_DEV_NVLINK_GET_STATE:nvlink:3", "site_metric"])
    assert [choice.name for choice in seen] == [UTIL, "DCGM_FI_DEV_NVLINK_GET_STATE:nvlink:3", "site_metric"]
    assert len(others) == len(CATALOGUE) - 2
    assert metric_choice("DCGM_FI_DEV_NVLINK_GET_STATE:nvlink:3").title.endswith(", nvlink 3")
    assert metric_choice("site_metric").description == "Not in the catalogue."


def test_the_form_holds_what_the_url_says(client: Client) -> None:
    save(block(gpu(), 0, {UTIL: 1.0, POWER: 70.0}))
    body = html(client, f"/explore?metric={POWER}&agg=max&by=host&top=3&every=5m&hostname=a&hostname=b&range=6h")
    assert f'<option value="{POWER}" selected>' in body
    assert "<option selected>max</option>" in body
    assert "<option selected>host</option>" in body
    assert re.findall(r'name="hostname"[^>]*value="(.*?)"', body) == ["a", "b"]
    assert 'name="range" value="6h"' in body
    assert "Power draw" in body or CATALOGUE[POWER].description in unescape(body)
    assert page_data(body)["errors"] == {}


def test_without_a_metric_it_is_utilisation_or_what_there_is(client: Client) -> None:
    assert page_data(html(client, "/explore"))["asked"] == [["metric", UTIL]]
    save(block(gpu(), 0, {POWER: 70.0}))
    assert page_data(html(client, "/explore"))["asked"] == [["metric", POWER]]


@pytest.mark.parametrize(
    ("query", "field", "words"),
    [
        ("agg=average", "agg", "use mean, max"),
        (f"metric={XID}&agg=mean", "agg", "cannot be added up"),
        (f"metric={UTIL}&agg=increase", "agg", "is for counters"),
        ("every=1ms&range=24h", "every", "10,000 are allowed"),
        ("every=soon", "every", "every 'soon'"),
        ("by=rack", "by", "by 'rack'"),
        ("top=0", "top", "top '0'"),
        ("hostname=a%00b", "hostname", "control characters"),
    ],
)
def test_errors_stand_beside_their_field(client: Client, query: str, field: str, words: str) -> None:
    body = html(client, f"/explore?{query}")
    assert words in error_of(body, field)
    assert list(page_data(body)["errors"]) == [field]


def test_empty_fields_of_the_form_are_as_if_left_out(client: Client) -> None:
    body = html(client, f"/explore?metric={UTIL}&agg=&every=&by=&top=&hostname=&model=&namespace=&pod=&uuid=")
    assert page_data(body)["errors"] == {}
    assert page_data(body)["asked"] == [["metric", UTIL]]


@pytest.mark.django_db(transaction=True)  # an export closes the connection
def test_files_and_the_curl_line_ask_the_same(client: Client, store: Store) -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    body = html(client, f"/explore?metric={UTIL}&by=host&start=2025-07-18T20:00:00Z&end=2025-07-18T21:00:00Z")
    curl = unescape(re.findall(r"<code[^>]*>curl '(.*?)'</code>", body)[0])
    path = "/api/v1/query?metric=DCGM_FI_DEV_GPU_UTIL&by=host&start_time=2025-07-18T20:00:00Z&end_time=2025-07-18T21:00:00Z"
    assert curl == f"http://testserver{path}"
    files = {name: unescape(url) for url, name in re.findall(r'href="([^"]*)" data-file="(\w+)"', body)}
    assert files == {name: f"{path}&format={name}" for name in ("ndjson", "parquet")} | {
        "csv": f"{path}&format=csv&csv_safe=true"  # for a spreadsheet, which takes some names for formulas
    }
    for url in files.values():
        response = client.get(url)
        assert response.status_code == 200
        response.close()


def test_a_name_cannot_break_out_of_the_curl_line(client: Client) -> None:
    body = html(client, "/explore?hostname=a%27%3B+rm+-rf+~%3B%27")
    (line,) = re.findall(r"<code[^>]*>(curl .*?)</code>", body)
    assert unescape(line).count("'") == 2


def test_queries_do_not_grow_with_the_fleet(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    save(*(block(gpu(f"GPU-{n}", hostname=f"n-{n:03d}"), 0, {UTIL: 1.0}) for n in range(50)))
    with django_assert_max_num_queries(8):
        html(client, "/explore?by=host")
