"""The web service, of which ``GET /wait`` is answered like ``GET /``, once the file WAIT_FOR is there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from telemetry_site.wsgi import application as service


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Waits, perhaps, and answers."""
    if environ["PATH_INFO"] == "/wait":
        while not Path(os.environ["WAIT_FOR"]).exists():
            time.sleep(0.02)
        environ["PATH_INFO"] = "/api"
    return service(environ, start_response)
