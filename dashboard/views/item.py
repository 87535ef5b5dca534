"""Pages of one host or GPU: what happens with names that nothing has, and with short ones."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect

from api.links import absolute
from dashboard.views.page import Page
from inventory.models import GPU


class Unknown(Exception):
    """Nothing has this name. ``candidates`` are the ids of GPUs that begin with it."""

    def __init__(self, what: str, name: str, candidates: list[str] | None = None) -> None:
        super().__init__(name)
        self.what = what
        self.name = name
        self.candidates = candidates or []


class Moved(Exception):
    """The page is at this path."""


class UnknownPage(Page):
    """Says that there is no such host or GPU, and offers what there is."""

    template_name = "dashboard/unknown.html"
    error = Unknown("page", "")

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = super().get(request, *args, **kwargs)
        response.status_code = 300 if self.error.candidates else 404
        return response

    def page_title(self) -> str:
        return f"No {self.error.what} {self.error.name}"

    def page_context(self) -> dict[str, Any]:
        candidates = GPU.objects.filter(pk__in=self.error.candidates).select_related("host")
        return {"what": self.error.what, "name": self.error.name, "candidates": list(candidates)}


def unknown_page(request: HttpRequest, error: Unknown) -> HttpResponse:
    """The answer to any request for what there is not."""
    page = UnknownPage(error=error)
    page.setup(request)
    return page.get(request)


class ItemPage(Page):
    """A page of one thing. ``page_context`` may raise Unknown or Moved."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        try:
            return super().get(request, *args, **kwargs)
        except Unknown as error:
            return unknown_page(request, error)
        except Moved as moved:
            query = request.META.get("QUERY_STRING", "")
            return redirect(f"{moved}?{query}" if query else str(moved))

    def api_url(self, path: str) -> str:
        """The absolute URL of a path of the API, for people to copy."""
        return absolute(self.request, path)
