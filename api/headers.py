"""What every answer tells a browser to be careful with, next to what Django's SecurityMiddleware says."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from api.errors import method_not_allowed

# Pages load what we serve and nothing else, send forms only to us, and stand in nobody's frame.
POLICY = (
    "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class HeadersMiddleware:
    """Adds the policy, unless the view has one of its own, keeps what the API answers out of caches, and words Django's 405."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if response.status_code == 405 and not response.content:
            response = method_not_allowed(request, response)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        if not request.path_info.startswith("/static/"):
            response.headers.setdefault("Cache-Control", "no-store")
        return response
