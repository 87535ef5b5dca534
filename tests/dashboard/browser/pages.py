"""The pages, by their names in dashboard/urls.py."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

from tests.dashboard.browser.filling import HOST, HOT

PATHS = {
    "fleet": "/",
    "hosts": "/hosts",
    "host": "/hosts/{host}",
    "gpu": "/gpus/{gpu}",
    "events": "/events",
    "event": "/events/1",
    "hot": "/hot",
    "power": "/power",
    "usage": "/usage",
    "pipeline": "/pipeline",
    "explore": "/explore",
}
# What pages load later: parts of them, not pages.
PARTS = {"attention", "hot-times", "power-energy"}
# Read, not imported: without Django's settings it cannot be.
_URLS = Path(__file__).resolve().parents[3] / "dashboard" / "urls.py"
NAMES = [name for name in re.findall(r'name="(\w+)"', _URLS.read_text()) if name in PATHS]


def path_of(name: str, gpu: str = "", host: str = HOST) -> str:
    """The path of a page. A GPU's page needs its id."""
    return PATHS[name].format(gpu=quote(gpu, safe=":"), host=quote(host))


SHOWN_GPU = HOT
