"""A real web service over a synthetic fleet, and a real Chromium that looks at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, Page

from tests.api.serving import migrated, serving
from tests.dashboard.browser.chromium import Watch, chromium, watched_page
from tests.dashboard.browser.site import Site, filled_site


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The one browser of these tests. It is closed after them: while it runs, nothing else in this process can run a loop."""
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="package")
def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Four hosts of eight GPUs and one with an odd name; see filling.py for what they show."""
    with filled_site(tmp_path_factory.mktemp("site")) as opened:
        yield opened


@pytest.fixture(scope="package")
def empty_site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A service to which nothing has ever come."""
    state = migrated(tmp_path_factory.mktemp("empty"))
    with serving(state) as service:
        yield Site(service, state)


@pytest.fixture
def page(site: Site, watch_and_page: tuple[Watch, Page]) -> Page:
    """A dark page of 1366 by 768 on the site. At the end nothing may have gone wrong in it."""
    site.report()
    return watch_and_page[1]


@pytest.fixture
def watch(watch_and_page: tuple[Watch, Page]) -> Watch:
    """What went wrong on ``page`` so far."""
    return watch_and_page[0]


@pytest.fixture
def watch_and_page(browser: Browser, site: Site) -> Iterator[tuple[Watch, Page]]:
    with watched_page(browser, site.address) as (page, watch):
        yield watch, page


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens further pages, as on an empty site or a phone: ``open_page(address, viewport=…)``."""
    with ExitStack() as stack:
        yield lambda address, **options: stack.enter_context(watched_page(browser, address, **options))[0]
