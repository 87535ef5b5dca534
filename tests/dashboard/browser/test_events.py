"""Events in the browser: the list, one event, marks, and what people of the staff do."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.browser.chromium import PHONE
from tests.dashboard.browser.filling import HELD, HOSTILE, HOT, MISSING, STALE_HOST, THROTTLED
from tests.dashboard.browser.site import Site
from tests.dashboard.browser.test_using import parameters

OpenPage = Callable[..., Page]


def opened(page: Page, path: str) -> Page:
    page.goto(path)
    page.wait_for_load_state("networkidle")
    return page


def test_the_list_shows_open_events_and_filters_are_in_the_url(page: Page) -> None:
    opened(page, "/events")
    rows = page.locator("#list tbody tr")
    expect(rows).to_have_count(7)
    expect(rows.first).to_contain_text("Host silent")
    expect(rows.first).to_contain_text("unknown")
    page.get_by_label("State").select_option("All of the range")
    expect(rows).to_have_count(8)
    page.get_by_label("Rule").select_option("Hot core")
    expect(rows).to_have_count(1)
    assert parameters(page) == {"state": "all", "rule": "temp_high"}
    page.go_back()
    page.go_back()
    expect(rows).to_have_count(7)
    expect(page.get_by_label("State")).to_have_value("")


def test_the_chart_counts_open_events_and_its_table_has_the_numbers(page: Page) -> None:
    opened(page, "/events")
    chart = page.locator("[data-chart=events]")
    chart.get_by_role("button", name="Table").click()
    expect(chart.locator("tbody tr").first.locator("td")).to_have_text(["3", "2", "2"])


def test_an_event_leads_to_its_gpu_at_that_time_and_escape_goes_up(page: Page) -> None:
    opened(page, "/events?rule=temp_high")
    page.get_by_role("link", name="Hot core").last.click()
    page.wait_for_url(re.compile(r"/events/1$"))
    expect(page.locator("h1")).to_contain_text("Hot core")
    expect(page.locator("[data-range]")).to_be_hidden()
    chart = page.locator("[data-event-charts] .chart").first
    expect(chart.locator(".chart-title")).to_have_text("GPU temperature")
    chart.get_by_role("button", name="Table").click()
    expect(chart.locator(".chart-marks")).to_contain_text("▲ warning, ")
    expect(chart.locator(".chart-marks")).to_contain_text("Hot core: 91 °C, limit 85 °C")
    page.get_by_role("link", name="The GPU from 30 min before").click()
    page.wait_for_url(re.compile(r"/gpus/GPU-[^?]*\?start=.*&end="))
    page.go_back()
    page.keyboard.press("Escape")
    page.wait_for_url(re.compile(r"/events$"))


def test_a_new_event_shows_by_itself_also_in_the_header(page: Page, site: Site) -> None:
    opened(page, "/events")
    count = page.locator("[data-critical]")
    expect(count).to_contain_text("3")
    site.say(event={"rule": "ecc_dbe", "slot": THROTTLED, "severity": "critical"})
    expect(page.locator("#list")).to_contain_text("ecc_dbe happened", timeout=15_000)
    expect(count).to_contain_text("4")
    site.say(close="ecc_dbe")
    expect(count).to_contain_text("3", timeout=15_000)


def test_the_fleet_marks_gpus_and_says_what_needs_attention(page: Page, site: Site) -> None:
    opened(page, "/?table=1")
    rows = page.locator("#twin tbody tr")
    host, _, slot = THROTTLED.rpartition("/")
    expect(rows.filter(has_text=f"{host} · gpu {slot} · ")).to_contain_text("⬣ critical")
    expect(rows.filter(has_text=HOT.replace("/", " · gpu "))).to_contain_text("▲ warning")
    for name in ("critical", "warning", "info"):
        expect(page.locator(f"[data-swatch={name}]")).to_be_visible()
    attention = page.locator("#attention")
    expect(attention).to_contain_text(f"Host silent · {STALE_HOST}")
    expect(attention).to_contain_text(HOSTILE)
    site.say(event={"rule": "remap_failed", "slot": HELD, "severity": "critical"})
    expect(attention).to_contain_text("remap_failed happened", timeout=15_000)
    site.say(close="remap_failed")
    expect(attention).not_to_contain_text("remap_failed happened", timeout=15_000)


def test_the_heat_map_tells_of_the_event_in_words(page: Page) -> None:
    heat = opened(page, "/?sort=name&q=003").locator("#heat")
    heat.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".heat-tooltip")).to_contain_text("⬣ critical event open")


def test_staff_acknowledge_note_mute_and_resolve(site: Site, open_page: OpenPage) -> None:
    site.say(event={"rule": "pcie_replay", "slot": MISSING, "severity": "warning"}, user="keeper")
    page = open_page(site.address)
    page.goto("/login?next=/events?rule=pcie_replay")
    page.get_by_label("User name").fill("keeper")
    page.get_by_label("Password").fill("a password for tests")
    page.get_by_role("button", name="Log in").click()
    page.locator("#list tbody a").first.click()
    page.get_by_label("Note").fill("<b>looking</b>\nat it")
    page.get_by_role("button", name="Acknowledge").click()
    steps = page.locator("#steps")
    expect(steps).to_contain_text("Acknowledged by keeper")
    expect(steps.locator("blockquote")).to_have_text(re.compile(r"<b>looking</b>\s*at it"))
    page.locator("select[name=length]").select_option("8 hours")
    page.get_by_role("button", name="Mute").click()
    expect(page.locator("#heading")).to_contain_text("muted until")
    confirm = page.get_by_role("button", name="Yes, resolve it")
    expect(confirm).to_be_hidden()
    page.get_by_text("Resolve…").click()
    confirm.click()
    expect(page.locator("#heading")).to_contain_text("closed by keeper")
    expect(confirm).to_have_count(0)


def test_it_works_without_scripts(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.address, java_script_enabled=False)
    page.goto("/events?rule=thermal_throttle")
    expect(page.locator("#list")).to_contain_text("No event matches these filters.")
    page.get_by_label("State").select_option("All of the range")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#list tbody tr")).to_have_count(1)
    page.get_by_label("Severity").get_by_role("link", name="warning").click()
    assert parameters(page)["severity"] == "warning"
    expect(page.locator("#list tbody tr")).to_have_count(1)
    page.locator("#list tbody a").first.click()
    expect(page.locator("h1")).to_have_count(1)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_on_a_phone_the_list_is_cards_before_the_chart(site: Site, open_page: OpenPage, theme: str) -> None:
    page = opened(open_page(site.address, viewport=PHONE, color_scheme=theme), "/events")
    first, chart = page.locator("#list").bounding_box(), page.locator("[data-chart=events]").bounding_box()
    assert first is not None
    assert chart is not None
    assert first["y"] < chart["y"]
    expect(page.locator("#list tbody tr").first).to_contain_text("1 time")


def test_charts_of_a_gpu_and_its_host_mark_events_and_say_what(page: Page, site: Site) -> None:
    host = HOT.rpartition("/")[0]
    for path, where in ((f"/gpus/{site.gpu(HOT)}", ""), (f"/hosts/{host}", "gpu 5: ")):
        opened(page, path)
        for title in ("Utilisation", "Temperature"):
            chart = page.locator(f".chart[aria-label='{title}']")
            chart.get_by_role("button", name="Table").click()
            marks = chart.locator(".chart-marks")
            expect(marks).to_contain_text(f"{where}Hot core: 91 °C, limit 85 °C")
            expect(marks).to_contain_text("Thermal throttling: Heat holds its clocks down")
        expect(page.locator("#own-events")).to_contain_text("Hot core")


def test_the_search_finds_events_by_rule_and_xid(page: Page) -> None:
    opened(page, "/")
    page.keyboard.press("/")
    page.keyboard.type("xid 32")
    expect(page.locator("#search-results li").first).to_contain_text("XID 32")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/events\?state=all&subject=32$"))
    expect(page.locator("#list tbody tr")).to_have_count(1)
