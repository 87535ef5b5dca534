"""The pages while something is away: they say so, keep what they have, and come back by themselves."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.api.serving import environment, listening, manage, serving
from tests.dashboard.browser.chromium import watched_page
from tests.dashboard.browser.filling import HOST
from tests.dashboard.browser.pages import NAMES, SHOWN_GPU, path_of
from tests.dashboard.browser.site import Site
from tests.ports import free_port

# The browser itself reports requests that fail.
PASSWORD = "rack-12-is-warm"
OF_FAILING = r"Failed to load resource|^failed: |^status 50\d"


def add_person(state: Path) -> None:
    """Anna may log in. A second call changes nothing."""
    code = (
        "from django.contrib.auth.models import User;"
        f"User.objects.filter(username='anna').exists() or User.objects.create_user('anna', password={PASSWORD!r})"
    )
    subprocess.run(manage("shell", "--command", code), env=environment(state), check=True, capture_output=True)


def test_while_the_web_service_is_away_a_banner_has_the_last_good_time(browser: Browser, site: Site) -> None:
    port = free_port()
    command = [*manage("serve", "--port", str(port), "--web-concurrency", "1")]
    with watched_page(browser, f"http://127.0.0.1:{port}") as (page, watch):
        watch.expect(OF_FAILING)
        with listening(command, environment(site.state)):
            page.goto("/?refresh=5")
            page.wait_for_load_state("networkidle")
            expect(page.locator("#banner")).to_be_hidden()
            reporting = page.locator("[data-tile=reporting]").inner_text()
        page.keyboard.press("r")
        expect(page.locator("#banner")).to_have_text(
            re.compile(r"The web service does not answer\. The numbers are from \d\d:\d\d:\d\d\."), timeout=15_000
        )
        assert page.locator("[data-tile=reporting]").inner_text() == reporting
        with listening(command, environment(site.state)):
            # Without anybody's doing.
            expect(page.locator("#banner")).to_be_hidden(timeout=20_000)


@pytest.mark.parametrize("name", [name for name in NAMES if name in {"fleet", "host", "gpu", "power", "explore"}])
def test_while_the_store_is_away_the_page_says_so_and_shows_the_inventory(
    name: str, browser: Browser, site: Site
) -> None:
    gpu = site.gpu(f"{HOST}/0")
    with (
        serving(
            site.state, STORAGE_TYPE="influxdb", INFLUXDB_URL=f"http://127.0.0.1:{free_port()}", INFLUXDB_TOKEN="t"
        ) as service,
        watched_page(browser, service.address) as (page, watch),
    ):
        watch.expect(OF_FAILING)
        page.goto(path_of(name, gpu))
        expect(page.locator("#banner")).to_contain_text("store", timeout=15_000)
        expect(page.locator("#banner")).to_contain_text("answer")
        expect(page.locator("h1")).to_have_count(1)
        if name == "fleet":
            expect(page.locator("[data-tile=expected]")).to_have_text("of 34")


# They ask the API, for their fragments, and for their parts.
@pytest.mark.parametrize("name", [name for name in NAMES if name in {"fleet", "host", "pipeline"}])
def test_after_a_login_has_ended_the_page_says_so(name: str, browser: Browser, site: Site) -> None:
    add_person(site.state)
    with (
        serving(site.state, API_AUTH_REQUIRED="true", LOGIN_RATE="0") as service,
        watched_page(browser, service.address) as (page, watch),
    ):
        watch.expect("status (of )?401")
        page.goto(path_of(name, site.gpu(SHOWN_GPU)))
        page.get_by_label("User name").fill("anna")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("h1")).to_have_count(1)
        page.wait_for_load_state("networkidle")
        page.context.clear_cookies()
        page.keyboard.press("r")
        expect(page.locator("#banner")).to_contain_text("Your login has ended", timeout=15_000)


def test_while_the_broker_is_away_the_pipelines_page_says_so(browser: Browser, site: Site, tmp_path: Path) -> None:
    if "pipeline" not in NAMES:
        pytest.skip("no page pipeline yet")
    with (
        serving(site.state, MQ_PORT=str(free_port())) as service,
        watched_page(browser, service.address) as (page, _),
    ):
        page.goto(path_of("pipeline"))
        expect(page.locator("#banner")).to_contain_text("broker", ignore_case=True)
        expect(page.locator("#banner")).to_contain_text("answer")
