"""What people do with the pages: drill down, choose times, watch live, and all of it by keyboard alone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.dashboard.browser.chromium import Watch, loaded_bytes
from tests.dashboard.browser.filling import BUSY, HELD, HOST, HOT, MISSING, ODD_HOST, POWER, STALE_HOST, UTIL
from tests.dashboard.browser.pages import NAMES, path_of
from tests.dashboard.browser.site import Site

MOST_BYTES = 120_000


def needs(*names: str) -> pytest.MarkDecorator:
    """Of pages that are being built."""
    return pytest.mark.skipif(not set(names) <= set(NAMES), reason=f"no page {', '.join(names)} yet")


def parameters(page: Page) -> dict[str, str]:
    """The parameters of the page's URL."""
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def open_fleet(page: Page) -> Locator:
    """The fleet's page; returns its heat map."""
    page.goto("/")
    page.wait_for_load_state("networkidle")
    return page.locator("#heat")


# The fleet


def test_the_tiles_count_what_there_is(page: Page) -> None:
    open_fleet(page)
    expect(page.locator("[data-tile=reporting]")).to_have_text("25")
    expect(page.locator("[data-tile=expected]")).to_have_text("of 34")
    expect(page.locator("[data-tile=missing]")).to_have_text("1 missing")
    expect(page.locator("[data-tile=stale]")).to_have_text("8 stale")


def test_what_is_missing_stale_and_held_is_named(page: Page) -> None:
    open_fleet(page)
    attention = page.locator("#attention")
    host, _, slot = MISSING.rpartition("/")
    expect(attention).to_contain_text(f"GPU missing · {host} · gpu {slot}")
    expect(attention).to_contain_text(STALE_HOST)
    expect(page.locator("#held")).to_contain_text(HELD.rpartition("/")[0])
    expect(page.locator("#hottest tbody tr").first).to_contain_text("synthetic-003")


def test_the_table_has_what_the_heat_map_shows(page: Page) -> None:
    open_fleet(page)
    page.get_by_role("button", name="Table", exact=True).first.click()
    assert parameters(page) == {"table": "1"}
    rows = page.locator("#twin tbody tr")
    expect(rows).to_have_count(34)
    expect(rows.filter(has_text="missing")).to_have_count(1)
    expect(rows.filter(has_text="stale")).to_have_count(8)
    page.go_back()
    assert parameters(page) == {}


def test_a_filter_and_a_metric_are_in_the_url_and_back_undoes_them(page: Page) -> None:
    open_fleet(page)
    page.locator("#pick-metric").select_option("DCGM_FI_DEV_GPU_TEMP")
    page.locator("#pick-namespace").select_option("notebooks")
    assert parameters(page) == {"metric": "DCGM_FI_DEV_GPU_TEMP", "namespace": "notebooks"}
    page.go_back()
    expect(page.locator("#pick-namespace")).to_have_value("")
    page.go_back()
    expect(page.locator("#pick-metric")).to_have_value(UTIL)
    assert parameters(page) == {}


@needs("gpu", "host")
def test_arrows_and_enter_drill_down_and_escape_goes_up(page: Page, site: Site) -> None:
    heat = open_fleet(page)
    page.goto("/?sort=name&range=15m")
    page.wait_for_load_state("networkidle")
    heat.focus()
    # The odd host's two GPUs come first.
    for key in ("Home", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    expect(page.locator(".heat-tooltip")).to_contain_text(HOST)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/gpus/.*\?range=15m$"))
    expect(page.locator("h1")).to_contain_text(f"{HOST} · gpu 0")
    page.keyboard.press("Escape")
    page.wait_for_url(re.compile(rf"/hosts/{HOST}\?range=15m$"))
    expect(page.locator("h1")).to_contain_text(HOST)
    page.keyboard.press("Escape")
    page.wait_for_url(re.compile(r"127\.0\.0\.1:\d+/(\?.*)?$|/hosts(\?.*)?$"))


@needs("gpu")
def test_a_click_on_a_cell_opens_its_gpu(page: Page, site: Site) -> None:
    heat = open_fleet(page)
    box = heat.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 200, box["y"] + 12)
    expect(page.locator(".heat-tooltip")).to_be_visible()
    told = page.locator(".heat-tooltip").inner_text()
    page.mouse.click(box["x"] + 200, box["y"] + 12)
    page.wait_for_url(re.compile("/gpus/"))
    assert page.locator("h1").inner_text().split(" · ")[0] in told


def test_the_heat_map_says_how_long_it_draws(page: Page) -> None:
    open_fleet(page)
    assert page.evaluate("performance.getEntriesByName('heatmap-draw').length") >= 1


def test_scripts_and_styles_are_small(page: Page, site: Site) -> None:
    open_fleet(page)
    assert 20_000 < loaded_bytes(page, lambda url: site.service.get(url).body) <= MOST_BYTES


# Live


def test_a_new_reading_shows_by_itself(page: Page, site: Site) -> None:
    open_fleet(page)
    power = page.locator("[data-tile=power]")
    expect(page.locator("[data-live-text]")).to_contain_text("Live")
    site.report(BUSY, **{POWER: 50_000.0})
    # The page asks every five seconds.
    expect(power).to_have_text(re.compile(r"^[56]\d\.\d"), timeout=15_000)
    site.report(BUSY, **{POWER: 400.0})


def test_while_paused_nothing_is_asked(page: Page, watch: Watch) -> None:
    page.clock.install()
    open_fleet(page)
    page.keyboard.press("p")
    expect(page.locator("[data-live-text]")).to_contain_text("Paused")
    expect(page.locator("[data-pause]")).to_have_attribute("aria-pressed", "true")
    asked = len(watch.requests)
    page.clock.run_for(20_000)
    assert len(watch.requests) == asked
    page.keyboard.press("p")
    expect(page.locator("[data-live-text]")).to_contain_text("Live")
    page.clock.run_for(10_000)
    page.wait_for_load_state("networkidle")
    assert len(watch.requests) > asked


def test_an_absolute_range_does_not_refresh(page: Page) -> None:
    end = datetime.now(UTC).replace(microsecond=0)
    start = end - timedelta(minutes=30)
    page.goto(f"/?start={start:%Y-%m-%dT%H:%M:%SZ}&end={end:%Y-%m-%dT%H:%M:%SZ}")
    expect(page.locator("[data-live-text]")).to_contain_text("Fixed range")
    expect(page.locator("[data-absolute]")).to_contain_text(f"{start:%H:%M}")


# Times


def test_presets_are_in_the_url_and_back_undoes(page: Page) -> None:
    open_fleet(page)
    page.locator("[data-preset='6h']").click()
    assert parameters(page) == {"range": "6h"}
    expect(page.locator("[data-preset='6h']")).to_have_attribute("aria-current", "true")
    page.go_back()
    expect(page.locator("[data-preset='1h']")).to_have_attribute("aria-current", "true")
    assert parameters(page) == {}


def test_a_start_and_an_end_can_be_typed(page: Page) -> None:
    open_fleet(page)
    page.locator("[data-absolute]").click()
    start, end = page.locator("#range-start"), page.locator("#range-end")
    start.fill("2026-01-02T03:00:00")
    end.fill("2026-01-02T02:00:00")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator("#range-dialog [role=alert]")).to_have_text("The end must be after the start.")
    end.fill("2026-01-02T04:00:00")
    page.get_by_role("button", name="Show", exact=True).click()
    assert parameters(page) == {"start": "2026-01-02T03:00:00Z", "end": "2026-01-02T04:00:00Z"}
    page.go_back()
    assert parameters(page) == {}


def test_dragging_over_a_chart_zooms_and_back_undoes(page: Page) -> None:
    open_fleet(page)
    plot = page.locator("#trend-power .u-over")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.5, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, y, steps=5)
    page.mouse.up()
    zoomed = parameters(page)
    assert set(zoomed) == {"start", "end"}
    length = datetime.fromisoformat(zoomed["end"]) - datetime.fromisoformat(zoomed["start"])
    assert timedelta(minutes=13) < length < timedelta(minutes=17)
    page.wait_for_load_state("networkidle")
    page.go_back()
    assert parameters(page) == {}
    expect(page.locator("[data-preset='1h']")).to_have_attribute("aria-current", "true")


def test_a_chart_shows_its_numbers_as_a_table(page: Page) -> None:
    open_fleet(page)
    chart = page.locator("#trend-power")
    chart.get_by_role("button", name="Table").click()
    assert chart.locator("tbody tr").count() > 10
    plot = chart.locator(".chart-plot")
    plot.focus()
    page.keyboard.press("ArrowLeft")
    expect(chart.locator("[aria-live]")).to_contain_text("W")


def test_utc_or_local_time(page: Page) -> None:
    open_fleet(page)
    clock = page.locator("[data-clock]")
    expect(clock).to_contain_text("UTC")
    page.keyboard.press("u")
    expect(page.locator("[data-zone]")).to_have_text("Local")
    assert parameters(page) == {"tz": "local"}
    expect(clock).to_contain_text("Local time")
    expect(page.locator("#trend-power .chart-note")).to_contain_text("local time")
    page.keyboard.press("u")
    expect(clock).to_contain_text("UTC")


# The keyboard


def test_search_by_keyboard_alone(page: Page) -> None:
    open_fleet(page)
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("synthetic-003")
    first = page.locator("#search-results [role=option]").first
    expect(first).to_contain_text("synthetic-003")
    page.keyboard.press("Escape")
    expect(page.locator("#search-results")).to_be_hidden()


@needs("host")
def test_enter_in_the_search_opens_a_host_of_any_name(page: Page) -> None:
    open_fleet(page)
    page.keyboard.press("/")
    page.keyboard.type(ODD_HOST[:6])
    expect(page.locator("#search-results [role=option]").first).to_contain_text(ODD_HOST)
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text(ODD_HOST)
    expect(page.locator("main")).to_contain_text("gpu 0 · 0dd00000")


def test_the_keys_explain_themselves(page: Page) -> None:
    open_fleet(page)
    page.keyboard.press("?")
    dialog = page.locator("#help")
    expect(dialog).to_be_visible()
    for key in ("/", "?", "p", "t", "u", "Enter", "Esc"):
        expect(dialog.locator("kbd", has_text=re.compile(f"^{re.escape(key)}$")).first).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_tab_begins_with_the_skip_link_and_every_stop_can_be_seen(page: Page) -> None:
    open_fleet(page)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    seen = 0
    for _ in range(60):
        page.keyboard.press("Tab")
        box = page.evaluate(
            "(() => { const b = document.activeElement.getBoundingClientRect(); return [b.width, b.height]; })()"
        )
        if page.evaluate("document.activeElement === document.body"):
            break
        assert min(box) > 2, page.evaluate("document.activeElement.outerHTML")
        seen += 1
    assert seen > 20


# A host and a GPU


@needs("host")
def test_a_host_shows_its_gpus_and_leads_to_one(page: Page, site: Site) -> None:
    page.goto(path_of("host"))
    page.wait_for_load_state("networkidle")
    expect(page.locator("main")).to_contain_text("missing")
    page.locator("main a[href*='/gpus/']").first.click()
    page.wait_for_url(re.compile("/gpus/"))
    expect(page.locator("h1")).to_contain_text(HOST)


@needs("gpu")
def test_a_gpu_shows_a_new_value_and_why_it_is_slow(page: Page, site: Site) -> None:
    page.goto(path_of("gpu", site.gpu(HOT)))
    page.wait_for_load_state("networkidle")
    expect(page.locator("main")).to_contain_text("91")
    site.report(HOT, **{POWER: 612.3})
    page.keyboard.press("r")
    expect(page.locator("main")).to_contain_text("612", timeout=15_000)


@needs("hosts", "hot")
@pytest.mark.parametrize(("name", "column"), [("hosts", "Power"), ("hot", "Power")])
def test_a_table_is_sorted_by_a_click_and_the_url_says_so(name: str, column: str, page: Page) -> None:
    page.goto(path_of(name))
    page.wait_for_load_state("networkidle")
    header = page.locator("main table thead th", has_text=column).first
    header.locator("a, button").click()
    expect(header).to_have_attribute("aria-sort", "descending")
    assert "power" in parameters(page)["sort"]
    values = page.locator("main table").first.locator("tbody tr").all_inner_texts()
    watts = [float(found[1].replace(",", "")) for text in values if (found := re.search(r"([\d,.]+)\sW\b", text))]
    assert len(watts) > 3
    assert watts == sorted(watts, reverse=True)
    page.go_back()
    assert "sort" not in parameters(page)
