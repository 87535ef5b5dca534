"""What the pages cost: the server's time, the bytes and the first paint in Chromium, and a redraw of the heat map.

    python -m bench.pages                          # 248 GPUs on SQLite and 10,000 GPUs on InfluxDB, 25 metrics each
    python -m bench.pages --fleets 248 --events 100000

Each page is asked again after new readings of the whole fleet, so that nothing kept from before helps. Service, store and
browser share the machine. ``api`` is the slowest of the questions that the page itself asks the API.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import Browser, Page

from tests.dashboard.browser.chromium import chromium, loaded_bytes, watched_page
from tests.dashboard.browser.filling import BUSY
from tests.dashboard.browser.pages import NAMES, path_of
from tests.dashboard.browser.site import Site, filled_site
from tests.influxd import Influxd, find_binary

GPUS_PER_HOST = 8
# From here on a fleet needs InfluxDB.
LARGE = 2000
_TIMINGS = """() => performance.getEntriesByType("resource").filter((each) => new URL(each.name).pathname.startsWith("/api/"))
  .map((each) => [new URL(each.name).pathname, each.responseEnd - each.requestStart])"""


def main() -> None:
    """Measure each fleet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fleets", type=int, nargs="+", default=[248, 10_000], help="GPUs [%(default)s]")
    parser.add_argument(
        "--events", type=int, default=10_000, help="events, of which one in twenty is open [%(default)s]"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each page is asked [%(default)s]")
    options = parser.parse_args()
    with chromium() as browser:
        for gpus in options.fleets:
            with ExitStack() as stack:
                measure(browser, start(stack, gpus, options.events), gpus, options.rounds)


def start(stack: ExitStack, gpus: int, events: int) -> Site:
    """A service over a fleet of about this size."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-pages-")))
    environ: dict[str, str] = {}
    if gpus > LARGE:
        server = Influxd(find_binary(), folder / "influxd")
        stack.callback(server.stop)
        server.start()
        environ = {"STORAGE_TYPE": "influxdb", "INFLUXDB_URL": server.url, "INFLUXDB_TOKEN": server.token}
    state = folder / "state"
    state.mkdir(mode=0o700)
    size = ["--hosts", str(gpus // GPUS_PER_HOST), "--gpus-per-host", str(GPUS_PER_HOST), "--metrics", "default"]
    size += ["--events", str(events)]
    minutes = "5" if gpus > LARGE else "60"
    return stack.enter_context(filled_site(state, *size, "--minutes", minutes, **environ))


def measure(browser: Browser, site: Site, gpus: int, rounds: int) -> None:
    """Print a line for each page, and one for the heat map."""
    print(f"\n{gpus} GPUs\n{'page':<10}{'server ms':>10}{'worst':>8}{'paint ms':>10}{'api ms':>8}  slowest question")
    gpu = site.gpu(BUSY)
    for name in NAMES:
        path = path_of(name, gpu)
        site.service.get(path)
        times = [timed(lambda: site.report(), lambda path=path: site.service.get(path)) for _ in range(rounds)]  # type: ignore[misc]
        with watched_page(browser, site.address) as (page, watch):
            page.goto(path)
            page.wait_for_load_state("networkidle")
            paint, (question, slowest) = first_paint(page), slowest_question(page)
            watch.faults.clear()
            if name == "fleet":
                footer = f"scripts and styles of the fleet page: {loaded_bytes(page, lambda url: site.service.get(url).body):,} bytes gzipped\n{redraws(page)}"
        print(f"{name:<10}{statistics.median(times):>10.0f}{max(times):>8.0f}{paint:>10.0f}{slowest:>8.0f}  {question}")
        sys.stdout.flush()
    snapshot = site.service.get("/api/v1/fleet", **{"Accept-Encoding": "gzip"}).body
    fleet = [timed(lambda: site.report(), lambda: site.service.get("/api/v1/fleet")) for _ in range(rounds)]
    print(f"/api/v1/fleet: {statistics.median(fleet):.0f} ms, {len(snapshot):,} bytes gzipped")
    print(footer)


def timed(before: Callable[[], object], call: Callable[[], object]) -> float:
    """How long ``call`` takes, in ms, after ``before``."""
    before()
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def first_paint(page: Page) -> float:
    """When the first content was painted, in ms after the navigation began."""
    found = page.evaluate("performance.getEntriesByName('first-contentful-paint').map((each) => each.startTime)")
    return float(found[0]) if found else float("nan")


def slowest_question(page: Page) -> tuple[str, float]:
    """The path that took longest, and its time in ms."""
    timings = page.evaluate(_TIMINGS)
    return max(((path, float(ms)) for path, ms in timings), key=lambda each: each[1], default=("", 0.0))


def redraws(page: Page) -> str:
    """How long the heat map takes to draw itself with a cell for each GPU."""
    page.goto("/?cells=gpus&refresh=off")
    page.wait_for_load_state("networkidle")
    cells = page.locator("#heat").get_attribute("aria-label")
    page.evaluate("performance.clearMeasures()")
    for _ in range(10):
        page.keyboard.press("t")
    times = sorted(page.evaluate("performance.getEntriesByName('heatmap-draw').map((each) => each.duration)"))
    return f"heat map: {statistics.median(times):.1f} ms a draw, {times[-1]:.1f} at worst, of {len(times)} ({cells})"


if __name__ == "__main__":
    main()
