"""The fleet's heat map: filters that list, groups, keys, and hosts that open in a large fleet."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.dashboard.browser.chromium import watched_page
from tests.dashboard.browser.filling import HELD, HOST, MISSING, ODD_HOST, STALE_HOST
from tests.dashboard.browser.site import Site, filled_site
from tests.dashboard.browser.test_using import parameters


def opened(page: Page, path: str = "/") -> Locator:
    """The page's heat map, and the whole page has been loaded."""
    page.goto(path)
    page.wait_for_load_state("networkidle")
    return page.locator("#heat")


def test_a_tile_lists_what_it_counts_and_a_second_press_lets_it_go(page: Page) -> None:
    opened(page)
    tile = page.locator(".tile[data-show=held]")
    tile.click()
    assert parameters(page) == {"show": "held"}
    expect(tile).to_have_attribute("aria-current", "true")
    expect(page.locator("#twin tbody tr")).to_have_count(int(page.locator("[data-tile=held]").inner_text()))
    expect(page.locator("#twin tbody")).to_contain_text(f"{HELD.replace('/', ' · gpu ')} · ")
    expect(page.locator("[data-chosen]")).to_have_text("GPUs held but idle")
    tile.click()
    assert parameters(page) == {}
    expect(page.locator("#twin")).to_have_class(re.compile("visually-hidden"))


def test_what_needs_attention_says_since_when(page: Page) -> None:
    opened(page, "/?show=attention")
    rows = page.locator("#twin tbody tr")
    expect(rows).to_have_count(11)
    expect(page.locator("[data-tile=attention]")).to_have_text("11")
    host, _, slot = MISSING.rpartition("/")
    expect(rows.filter(has_text=f"{host} · gpu {slot} · ")).to_contain_text("missing")
    expect(rows.filter(has_text=STALE_HOST)).to_have_count(8)
    expect(page.locator("#attention .since", has_text=re.compile(r"^since .*\d\d:\d\d$"))).to_have_count(5)


def test_a_list_is_sorted_by_its_heads(page: Page) -> None:
    opened(page, "/?table=1")
    page.locator("#twin").get_by_role("button", name="Temperature").click()
    assert parameters(page) == {"table": "1", "list": "-temperature"}
    first, second = (page.locator("#twin tbody tr").nth(at).locator("td").nth(3).inner_text() for at in (0, 1))
    assert int(first.removesuffix(" °C").split(".")[0]) >= int(second.removesuffix(" °C").split(".")[0])


def test_a_host_filter_without_a_match_says_so_and_show_all_ends_it(page: Page) -> None:
    heat = opened(page)
    page.locator("#pick-q").fill("no such host")
    expect(page.locator("[data-no-match]")).to_have_text("No GPU matches these filters.")
    expect(heat).to_be_hidden()
    page.get_by_role("button", name="Show all").click()
    expect(heat).to_be_visible()
    assert parameters(page) == {}


def test_keys_move_to_the_ends_and_the_cell_keeps_the_focus_when_the_order_changes(page: Page) -> None:
    heat = opened(page, "/?sort=name")
    told = page.locator(".heat-tooltip")
    heat.focus()
    page.keyboard.press("Control+Home")
    expect(told).to_contain_text(f"{ODD_HOST} · gpu 0")
    page.keyboard.press("End")
    expect(told).to_contain_text(f"{ODD_HOST} · gpu 1")
    page.keyboard.press("Control+End")
    expect(told).to_contain_text("gpu 7")
    last = told.inner_text().partition(":")[0]
    page.evaluate("history.pushState(null, '', '?sort=worst'); dispatchEvent(new PopStateEvent('popstate'))")
    page.wait_for_load_state("networkidle")
    expect(told).to_contain_text(last)
    expect(page.locator(".heat-ring")).to_be_visible()


@pytest.fixture(scope="module")
def large_site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """More than 2,000 GPUs."""
    arguments = ("--hosts", "256", "--minutes", "1", "--metrics", "default")
    with filled_site(tmp_path_factory.mktemp("large"), *arguments) as site:
        yield site


@pytest.fixture
def large_page(browser: Browser, large_site: Site) -> Iterator[Page]:
    """A page on it."""
    with watched_page(browser, large_site.address) as (page, _):
        yield page


def cells(page: Page) -> int:
    """How many cells the map says it has."""
    found = re.search(r"([\d,]+) cells", page.locator("#heat").get_attribute("aria-label") or "")
    assert found is not None
    return int(found[1].replace(",", ""))


def test_in_a_large_fleet_a_cell_is_a_host_that_opens_and_closes(large_page: Page) -> None:
    heat = opened(large_page, "/?sort=name")
    hosts = cells(large_page)
    assert 250 <= hosts <= 257
    told = large_page.locator(".heat-tooltip")
    heat.focus()
    large_page.keyboard.press("ArrowRight")
    expect(told).to_contain_text(f"{HOST}: mean")
    large_page.keyboard.press("Enter")
    assert parameters(large_page) == {"sort": "name", "open": HOST}
    expect(heat).to_have_attribute("aria-label", re.compile(rf"\b{hosts + 8} cells"))
    expect(told).to_contain_text("Press to close it")
    large_page.keyboard.press("Enter")
    assert parameters(large_page) == {"sort": "name"}
    expect(heat).to_have_attribute("aria-label", re.compile(rf"\b{hosts} cells"))


def test_all_gpus_of_a_large_fleet_can_be_shown_and_a_filter_names_them(large_page: Page) -> None:
    heat = opened(large_page)
    large_page.locator("#pick-cells").select_option("gpus")
    expect(heat).to_have_attribute("aria-label", re.compile(r"\b2,0\d\d cells"))
    # Of its eight slots six are missing: all other hosts of the model have eight GPUs.
    large_page.locator("#pick-q").fill(ODD_HOST[:4])
    expect(heat).to_have_attribute("aria-label", re.compile(r"\b8 cells"))
