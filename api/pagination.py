"""Links from one page of an answer to the next."""

from __future__ import annotations

from typing import NamedTuple

from rest_framework.request import Request


class Links(NamedTuple):
    """Absolute URLs of the neighbouring pages, None where there is none."""

    next: str | None
    previous: str | None


def same_with(request: Request, **changes: object) -> str:
    """The absolute URL of this request with some parameters changed; None takes one away."""
    query = request.query_params.copy()
    for name, value in changes.items():
        if value is None:
            query.pop(name, None)
        else:
            query[name] = str(value)
    path = request._request.path
    return request.build_absolute_uri(f"{path}?{query.urlencode()}" if query else path)


def page_links(request: Request, page: int, *, more: bool) -> Links:
    """Links of an answer that is asked for by ``page``; ``more`` says whether rows follow it."""
    return Links(
        next=same_with(request, page=page + 1) if more else None,
        previous=same_with(request, page=page - 1 if page > 2 else None) if page > 1 else None,
    )


def list_links(request: Request, page: int | None, following: str | None) -> Links:
    """Links of a list: by page where one was asked for, else by the cursor ``following``, which stays right while the list
    changes and leads onwards only. None: no row follows."""
    if page is not None:
        return page_links(request, page, more=following is not None)
    return Links(next=same_with(request, cursor=following) if following else None, previous=None)


def offset_links(request: Request, offset: int, limit: int, *, more: bool) -> Links:
    """Links of an answer that is asked for by ``offset`` and ``limit``."""
    before = max(0, offset - limit)
    return Links(
        next=same_with(request, offset=offset + limit) if more else None,
        previous=same_with(request, offset=before or None) if offset > 0 else None,
    )
