"""Every page: it loads without a fault, in both themes and zones, on a phone, without readings, and by axe's rules."""

from __future__ import annotations

import re
from typing import Any

import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from playwright.sync_api import Page, expect

from dashboard.urls import urlpatterns
from tests.dashboard.browser.chromium import PHONE
from tests.dashboard.browser.conftest import OpenPage
from tests.dashboard.browser.pages import NAMES, PARTS, PATHS, SHOWN_GPU, path_of
from tests.dashboard.browser.site import Site

EACH = pytest.mark.parametrize("name", NAMES)
AXE = AXE_FILE_PATH.read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]


def test_every_page_is_looked_at() -> None:
    assert {pattern.name for pattern in urlpatterns} <= {*PATHS, *PARTS}


def show(page: Page, site: Site, name: str) -> None:
    """Open a page and wait until it has nothing more to ask for."""
    gpu = site.gpu(SHOWN_GPU) if name == "gpu" else ""
    page.goto(path_of(name, gpu))
    page.wait_for_load_state("networkidle")


def violations(page: Page) -> list[str]:
    """What axe finds on the page: the rule, what is wrong, and where."""
    page.evaluate(AXE)
    found: dict[str, Any] = page.evaluate("(rules) => axe.run({runOnly: rules})", RULES)
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


@EACH
def test_a_page_loads_without_a_fault_and_axe_finds_nothing_in_either_theme(name: str, page: Page, site: Site) -> None:
    show(page, site, name)
    expect(page).to_have_title(re.compile(r"\S · GPU telemetry$"))
    assert page.locator("h1").count() == 1
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert violations(page) == []
    page.keyboard.press("t")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert violations(page) == []


@EACH
def test_words_in_the_url_that_a_page_does_not_know_change_nothing(name: str, page: Page, site: Site) -> None:
    path = path_of(name, site.gpu(SHOWN_GPU) if name == "gpu" else "")
    known = ("sort", "group", "range", "show", "open", "more", "metric", "tz", "refresh")
    page.goto(f"{path}?{'&'.join(f'{each}=__proto__' for each in known)}")
    page.wait_for_load_state("networkidle")
    default = "7d" if name == "usage" else "1h"
    expect(page.locator(f"[data-preset='{default}']")).to_have_attribute("aria-current", "true")


@EACH
def test_a_phone_shows_it_without_scrolling_sideways(name: str, site: Site, open_page: OpenPage) -> None:
    page = open_page(site.address, viewport=PHONE)
    show(page, site, name)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


RECORD_FRAMES = """
window.frames_seen = [];
const record = () => {
  if (document.body) frames_seen.push([document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor]);
  requestAnimationFrame(record);
};
record();
"""


@pytest.mark.parametrize(("system", "chosen"), [("dark", "light"), ("light", "dark")])
def test_the_chosen_theme_is_there_from_the_first_frame(system: Any, chosen: str, page: Page, site: Site) -> None:
    page.emulate_media(color_scheme=system)
    show(page, site, "fleet")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.keyboard.press("t")
    expect(page.locator("html")).to_have_attribute("data-theme", chosen)
    page.add_init_script(RECORD_FRAMES)
    show(page, site, "fleet")
    seen = {tuple(each) for each in page.evaluate("frames_seen")}
    assert seen == {(chosen, page.evaluate("getComputedStyle(document.body).backgroundColor"))}
    assert (chosen, before) not in seen


@pytest.mark.parametrize("name", [name for name in NAMES if name in {"fleet", "hosts", "hot", "power", "usage"}])
def test_without_gpus_it_says_what_to_do_next(name: str, empty_site: Site, open_page: OpenPage) -> None:
    page = open_page(empty_site.address)
    page.goto(path_of(name))
    expect(page.locator("main")).to_contain_text("make run")
    assert violations(page) == []


@pytest.mark.parametrize("name", [name for name in NAMES if name in {"pipeline", "explore"}])
def test_without_gpus_it_still_answers(name: str, empty_site: Site, open_page: OpenPage) -> None:
    page = open_page(empty_site.address)
    page.goto(path_of(name))
    page.wait_for_load_state("networkidle")
    expect(page.locator("h1")).to_have_count(1)
