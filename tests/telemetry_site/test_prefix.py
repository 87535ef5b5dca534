from __future__ import annotations

import re
from collections.abc import Iterable
from html import unescape
from pathlib import Path
from typing import Any

import msgspec
import pytest

from telemetry_site.prefix import below
from tests.api.serving import serving


def seen(prefix: str, path: str) -> tuple[str, str]:
    """SCRIPT_NAME and PATH_INFO as the application has them."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return [environ["SCRIPT_NAME"].encode(), environ["PATH_INFO"].encode()]

    script, rest = below(prefix, application)({"SCRIPT_NAME": "", "PATH_INFO": path}, None)
    return script.decode(), rest.decode()


@pytest.mark.parametrize(
    ("path", "rest"),
    [
        ("/gpu/api/v1", "/api/v1"),
        ("/api/v1", "/api/v1"),
        ("/gpu", "/"),
        ("/gpu/", "/"),
        ("/gpu/gpu", "/gpu"),
        ("/gpus", "/gpus"),
        ("/health", "/health"),
        ("/gpu//x", "//x"),
    ],
)
def test_the_prefix_is_taken_off_once_if_it_is_there(path: str, rest: str) -> None:
    assert seen("/gpu", path) == ("/gpu", rest)


def test_without_a_prefix_nothing_changes() -> None:
    assert seen("", "/gpu/x") == ("", "/gpu/x")


@pytest.mark.acceptance
def test_a_service_below_a_path_answers_with_and_without_it(tmp_path: Path) -> None:
    with serving(tmp_path, PUBLIC_URL="http://example.com/gpu", API_AUTH_REQUIRED="false") as service:
        # Probes and Prometheus come past the proxy; a proxy leaves the path in, or has taken it off.
        for path in ("/health", "/ready", "/metrics", "/api/v1/gpus", "/static/api/icon.svg", "/swagger/index.html"):
            for prefix in ("", "/gpu"):
                assert service.get(prefix + path).status == 200, prefix + path
        assert service.get("/gpus/api/v1").status == 404
        for prefix in ("", "/gpu"):
            page = service.get(f"{prefix}/api/v1/gpus", Accept="text/html").body.decode()
            links = re.findall(r'(?:href|src|action)="(?:http://[^/"]+)?(/[^"]*)"', page)
            assert links
            assert not [link for link in links if not link.startswith("/gpu/")]
        urls = msgspec.json.decode(service.get("/gpu/api/v1").body)
        assert all("/gpu/" in url for url in urls.values())
        assert msgspec.json.decode(service.get("/gpu/api/schema").body)["servers"] == [{"url": "/gpu"}]
        for path in ("/", "/swagger", "/api", "/favicon.ico", "/swagger/doc.json"):  # most of them lead on
            for prefix in ("", "/gpu"):
                assert service.get(prefix + path).status == 200, prefix + path
        page = unescape(service.get("/api/v1/metrics?limit=1", Accept="text/html").body.decode())
        assert "<pre>curl 'http://example.com/gpu/api/v1/metrics?limit=1'</pre>" in page
        following = msgspec.json.decode(service.get("/api/v1/metrics?limit=1").body)["next"]
        assert following == "http://example.com/gpu/api/v1/metrics?limit=1&offset=1"
        cookie = service.get("/login", Accept="text/html").headers["Set-Cookie"]
        assert "Path=/gpu/" in cookie
