"""A web service below a path of its public address, as https://example.com/gpu."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


def below(prefix: str, application: Application) -> Application:
    """The application, which sees paths without the prefix and knows it as SCRIPT_NAME.

    A proxy may take the prefix off or not, and probes ask without it, so a path without it passes unchanged.
    """
    if not prefix:
        return application

    def stripped(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = str(environ.get("PATH_INFO", ""))
        if path == prefix or path.startswith(f"{prefix}/"):
            environ["PATH_INFO"] = path.removeprefix(prefix) or "/"
        environ["SCRIPT_NAME"] = prefix
        return application(environ, start_response)

    return stripped
