"""Chromium, and a page that tells everything that went wrong in it."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response, sync_playwright

ROOT = Path(__file__).resolve().parents[3]
# What a screen of an office shows, and a phone.
DESKTOP, PHONE = {"width": 1366, "height": 768}, {"width": 390, "height": 844}
PATIENCE_MS = 15_000
# A console message is not sent for every violation; the event is.
_TELL_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber} ${event.sample}`);
});
"""


def find_chromium() -> str:
    """Its path; without one the test is skipped, or fails where REQUIRE_CHROMIUM is 1."""
    found = subprocess.run([str(ROOT / "ci" / "chromium.sh"), "--find"], capture_output=True, text=True, check=False)
    if found.returncode == 0:
        return found.stdout.strip()
    message = "needs Chromium: run make chromium"
    if os.environ.get("REQUIRE_CHROMIUM") == "1":
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    path = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watch:
    """Collects what no page may do: console output, errors, violations of its policy, failed requests, requests elsewhere."""

    origin: str
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def follow(self, page: Page) -> None:
        """Watch this page from now on."""
        page.add_init_script(_TELL_VIOLATIONS)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("request", self._request)
        page.on("requestfailed", self._failed)
        page.on("response", self._response)

    def expect(self, pattern: str) -> None:
        """A fault that matches is what the test is about."""
        self.expected.append(pattern)

    def check(self) -> None:
        """Raise AssertionError for what was not expected."""
        wrong = [each for each in self.faults if not any(re.search(pattern, each) for pattern in self.expected)]
        assert wrong == []

    def _console(self, message: ConsoleMessage) -> None:
        self.faults.append(f"console.{message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        self.requests.append(request.url)
        parts = urlsplit(request.url)
        if f"{parts.scheme}://{parts.netloc}" != self.origin and parts.scheme not in {"data", "blob"}:
            self.faults.append(f"asked elsewhere: {request.url}")

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # by the page itself, as when the range changes meanwhile
            self.faults.append(f"failed: {request.url} {request.failure}")

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self.faults.append(f"status {response.status}: {response.url}")


def loaded_bytes(page: Page, get: Callable[[str], bytes]) -> int:
    """The gzipped size of all scripts and styles that the page has loaded; ``get`` gets the body of a URL."""
    names = page.evaluate("performance.getEntriesByType('resource').map((each) => each.name)")
    return sum(len(gzip.compress(get(url))) for url in set(names) if urlsplit(url).path.endswith((".js", ".css")))


@contextmanager
def watched_page(browser: Browser, base: str, **options: object) -> Iterator[tuple[Page, Watch]]:
    """A page in a context of its own; after the block, nothing may have gone wrong in it."""
    told: dict[str, object] = {
        "viewport": DESKTOP,
        "color_scheme": "dark",
        "timezone_id": "America/New_York",
        "locale": "en-US",
        "reduced_motion": "reduce",
    }
    context: BrowserContext = browser.new_context(base_url=base, **(told | options))  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE_MS)
    watch = Watch(base)
    page = context.new_page()
    watch.follow(page)
    try:
        yield page, watch
        watch.check()
    finally:
        context.close()
