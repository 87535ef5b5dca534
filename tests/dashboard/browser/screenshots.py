"""Takes the pictures that README and docs show: python -m tests.dashboard.browser.screenshots [--folder docs/images]

The demo fleet runs as `make run` runs it, with the hour before. So the pictures are alike each time, and not the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Browser

from tests.dashboard.browser.chromium import DESKTOP, PHONE, ROOT, chromium, watched_page
from tests.dashboard.browser.pages import NAMES, path_of
from tests.telemetry_site.test_pipeline import Run, pipeline

LARGEST = 200_000
HOSTS = 31
# From the demo's story: the host with a missing GPU, and a GPU that is throttled.
HOST, GPU_HOST, GPU_SLOT = "synthetic-004", "synthetic-001", 5
# Its faults have happened by then.
STORY_S = 60.0
PATIENCE_S = 400.0
# Of watch, in messages, which it acknowledges a few times a minute: then the events are those of now.
MOST_LAG = 1500


class Picture(NamedTuple):
    """A file's name, the page that it shows, what the page is asked for, and how it looks."""

    name: str
    page: str
    query: str = ""
    theme: str = "dark"
    viewport: dict[str, int] = DESKTOP


# For pages full of text, which compresses badly.
LOW = {"width": 1366, "height": 600}
PICTURES = (
    Picture("fleet-dark", "fleet"),
    Picture("fleet-light", "fleet", theme="light"),
    Picture("events", "events"),
    Picture("host", "host"),
    Picture("gpu", "gpu"),
    Picture("hot", "hot", viewport=LOW),
    Picture("power", "power", "?by=namespace", theme="light", viewport=LOW),
    Picture("pipeline", "pipeline"),
    Picture("explore", "explore", "?by=namespace", theme="light"),
    Picture("fleet-phone", "fleet", viewport=PHONE),
)


def main() -> None:
    """Run the demo until its story has been told, and take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "images")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="screenshots-") as state, chromium() as browser:
        settings = {"SIM_HOSTS": str(HOSTS), "SIM_HISTORY": "1h", "SCRAPE_INTERVAL": "5s", "STORAGE_TYPE": "sqlite"}
        with pipeline(Path(state), **settings) as run:
            base = wait_for_story(run)
            for picture in PICTURES:
                if picture.page in NAMES:
                    take(browser, base, picture, folder)
    too_large = [path.name for path in folder.glob("*.png") if path.stat().st_size > LARGEST]
    if too_large:
        sys.exit(f"larger than {LARGEST:,} bytes: {', '.join(too_large)}")


def wait_for_story(run: Run) -> str:
    """The service's address, once the demo has told its story and all of it is stored."""
    base = run.until(r"(http://\S+)/api/v1/gpus")[1]
    began = time.monotonic()
    deadline = began + PATIENCE_S
    while time.monotonic() < deadline:
        time.sleep(1.0)
        counts = get(f"{base}/api/v1/fleet")["counts"]
        if counts["missing"] and counts["hosts"] == HOSTS and time.monotonic() > began + STORY_S and is_judged(base):
            return base
    raise TimeoutError("the demo has not told its story")


def is_judged(base: str) -> bool:
    """Whether watch has read what there is, and what befell the GPU that is missing is an event."""
    watch = [each for each in get(f"{base}/api/v1/stats")["subscribers"] if each["id"] == "watch"]
    events = get(f"{base}/api/v1/events?state=ongoing&severity=critical&hostname={HOST}")
    return bool(watch) and (watch[0]["lag"] or 0) <= MOST_LAG and events["count"] > 0


def get(url: str) -> Any:
    """A JSON answer."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def take(browser: Browser, base: str, picture: Picture, folder: Path) -> None:
    """Write one picture."""
    gpus = get(f"{base}/api/v1/gpus?hostname={GPU_HOST}&page_size=100")["gpus"]
    gpu = next(each["id"] for each in gpus if each["gpu_id"] == GPU_SLOT)
    with watched_page(browser, base, color_scheme=picture.theme, viewport=picture.viewport) as (page, _):
        page.goto(path_of(picture.page, gpu, host=HOST) + picture.query)
        page.wait_for_load_state("networkidle")
        page.evaluate("document.activeElement?.blur()")
        page.screenshot(path=folder / f"{picture.name}.png")


if __name__ == "__main__":
    main()
