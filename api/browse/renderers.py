"""Writes answers as JSON for programs, and as a page for people who open the same URL in a browser."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from django.contrib.auth.middleware import get_user
from django.http import QueryDict
from django.template import loader
from rest_framework.exceptions import NotAcceptable
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.settings import api_settings

from api.browse.tables import tables_of
from api.errors import BadRequest
from api.links import absolute
from api.pagination import same_with
from api.params import EXPORT_FORMATS, Parameter

if TYPE_CHECKING:
    from rest_framework.views import APIView


class JsonRenderer(JSONRenderer):
    """JSON by msgspec: about a millisecond for a page of 1000 rows."""

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        """The answer as UTF-8, indented if the client asks for it."""
        if data is None:
            return b""
        encoded = msgspec.json.encode(data, enc_hook=str)
        indent = self.get_indent(accepted_media_type or "", dict(renderer_context or {}))
        return encoded if indent is None else msgspec.json.format(encoded, indent=indent)


class PageRenderer(BrowsableAPIRenderer):
    """The browsable page: the answer as tables with links, a form for the view's parameters, and links to other formats."""

    format = "html"
    template = "api/browse.html"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> str:
        """The page as text."""
        context = dict(renderer_context or {})
        view, request, response = context["view"], context["request"], context["response"]
        answer = msgspec.json.decode(JsonRenderer().render(data) or b"{}")
        page = {
            "name": getattr(view, "name", ""),
            "key": next(iter(context["kwargs"].values()), ""),
            "description": view.get_view_description(html=False).replace("`", ""),
            "note": getattr(view, "note", ""),
            "status": response.status_code,
            "answer": answer,
            "tables": tables_of(answer),
            "fields": _fields(view, request.query_params),
            "given": [each for each in request.query_params.lists() if each[0] not in {"format", *_PLACES}],
            "path": request._request.path,
            "formats": _formats(view, request),
            "command": f"curl {shlex.quote(absolute(request, request.get_full_path()))}",
            # DRF's request has no user, because the views leave that to api.auth.middleware.
            "user": get_user(request._request),
        }
        return loader.get_template(self.template).render(page, request=request._request)


# The position in an answer. The form drops these, because a changed filter starts again.
_PLACES = frozenset({"page", "offset", "cursor"})
# Who follows the link of a page opens the file in a spreadsheet.
FOR_PEOPLE = {"csv": {"csv_safe": "true"}}
# A file has all rows, whatever page links to it.
_PAGING = (*_PLACES, "page_size", "limit")


def _fields(view: APIView, query: QueryDict) -> list[dict[str, Any]]:
    """The form's fields: one for each parameter, with the given values and, for lists, room for one more."""
    return [
        {
            "name": parameter.name,
            "help": parameter.help,
            "choices": parameter.schema.get("enum", ()),
            "is_number": parameter.schema.get("type") == "integer",
            "default": parameter.schema.get("default"),
            "values": _values(parameter, query),
        }
        for parameter in getattr(view, "parameters", ())
        if parameter.name not in {"cursor", "format"}  # cursors and formats are links
    ]


def _values(parameter: Parameter, query: QueryDict) -> list[str]:
    given = [] if parameter.name in _PLACES else query.getlist(parameter.name)
    return [*given, ""] if parameter.many or not given else given[:1]


def _formats(view: APIView, request: Request) -> list[dict[str, str]]:
    """Links to the other formats of the answer."""
    names: tuple[str, ...] = getattr(view, "formats", tuple)()
    exports = {
        name: same_with(request, format=name, **dict.fromkeys(_PAGING), **FOR_PEOPLE.get(name, {}))
        for name in names
        if name in EXPORT_FORMATS
    }
    return [
        {"name": name.upper(), "url": exports.get(name) or same_with(request, format=name)}
        for name in names
        if name != "html"
    ]


class ExportRenderer(BaseRenderer):
    """A file format in which the view streams the rows. Errors are JSON."""

    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        """Errors only (see ApiView.finalize_response)."""
        return JsonRenderer().render(data)


class CsvRenderer(ExportRenderer):
    """CSV (RFC 4180)."""

    media_type = "text/csv"
    format = "csv"


class NdjsonRenderer(ExportRenderer):
    """One JSON object a line."""

    media_type = "application/x-ndjson"
    format = "ndjson"


class ParquetRenderer(ExportRenderer):
    """Apache Parquet."""

    media_type = "application/vnd.apache.parquet"
    format = "parquet"


EXPORT_RENDERERS: tuple[type[ExportRenderer], ...] = (CsvRenderer, NdjsonRenderer, ParquetRenderer)


class Negotiation(DefaultContentNegotiation):
    """Chooses the renderer by ``format``, else by the Accept header. An unknown format is a 400."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """The parameter ``format`` wins over the header."""
        renderers = list(renderers)
        try:
            chosen, media_type = super().select_renderer(request, renderers, format_suffix)
            return chosen, str(media_type)
        except NotAcceptable:
            asked = request.query_params.get(api_settings.URL_FORMAT_OVERRIDE)
            if not asked:
                raise
            chosen = self.filter_renderers(renderers, asked)[0]
            return chosen, str(chosen.media_type)

    def filter_renderers(self, renderers: Iterable[BaseRenderer], format: str) -> list[BaseRenderer]:
        """The renderers of this format. Raises BadRequest if there are none."""
        renderers = list(renderers)
        chosen = [renderer for renderer in renderers if renderer.format == format]
        if not chosen:
            names = [str(renderer.format) for renderer in renderers]
            known = " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
            raise BadRequest(f"format {format[:80]!r} is not known: use {known}")
        return chosen
