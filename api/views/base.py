"""The base of all views: the table of parameters, and the attributes from which the schema is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from django.http import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from api.auth.changing import Changer, check_changer
from api.auth.middleware import REALM, check_scope
from api.bodies import read_body
from api.browse.renderers import EXPORT_RENDERERS, ExportRenderer, JsonRenderer
from api.exports.formats import CsvEncoder, Encoder, Layout, NdjsonEncoder, ParquetEncoder
from api.exports.stream import export, file_name
from api.models import TokenScope
from api.params import EXPORT_FORMATS, Parameter, flag, format_of, read_parameters
from api.schema.answers import Answer, RequestBody


class WriteOperation(NamedTuple):
    """A method that changes something. ``permission`` is what a person needs; a token needs the scope admin.

    ``answer`` is the body of the answer, with this ``status``; ``body`` is what the request holds.
    """

    operation_id: str
    name: str
    permission: str
    answer: type[Answer]
    body: type[RequestBody] | None = None
    status: int = 200
    error_statuses: tuple[int, ...] = (400, 404, 503)


class ApiView(APIView):
    """A view. Subclasses set the class attributes. ``values`` holds the parsed parameters when ``get`` runs.

    ``answer`` is the body of a 200. ``scope`` is what a token needs (the middleware checks reading itself).
    ``path_help`` describes the parameters in the path. ``writes`` has the methods that change something: before one of them runs,
    ``changer`` and ``body`` are set.
    """

    name: ClassVar[str]
    tag: ClassVar[str]
    operation_id: ClassVar[str]
    answer: ClassVar[type[Answer]]
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    path_help: ClassVar[Mapping[str, str]] = MappingProxyType({})
    error_statuses: ClassVar[tuple[int, ...]] = (400, 503)
    scope: ClassVar[str] = TokenScope.READ
    writes: ClassVar[Mapping[str, WriteOperation]] = MappingProxyType({})

    changer: Changer
    body: Any
    values: dict[str, Any]
    note: str = ""  # about this answer, for its page

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Read the parameters and the body before the method runs, once it is clear who may. Raises APIException."""
        super().initial(request, *args, **kwargs)
        if self.scope != TokenScope.READ:
            check_scope(request._request, self.scope)
        if request.method in {"GET", "HEAD"}:
            self.values = read_parameters(request.query_params, (*self.parameters, self.format_parameter()))
        elif (write := self.writes.get(str(request.method))) is not None:
            self.changer = check_changer(request._request, write.permission)
            read_parameters(request.query_params, (self.format_parameter(),))
            if write.body is not None:
                self.body = read_body(request._request, write.body)

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        """Renders errors of an export as JSON. The view streams the export itself."""
        if isinstance(response, Response) and isinstance(getattr(request, "accepted_renderer", None), ExportRenderer):
            request.accepted_renderer, request.accepted_media_type = JsonRenderer(), str(JsonRenderer.media_type)
        return super().finalize_response(request, response, *args, **kwargs)

    @classmethod
    def formats(cls) -> tuple[str, ...]:
        """The formats of the answer."""
        return tuple(str(renderer.format) for renderer in cls.renderer_classes)

    @classmethod
    def format_parameter(cls) -> Parameter:
        """The parameter that chooses the format."""
        return format_of(cls.formats())

    @classmethod
    def exports(cls) -> tuple[str, ...]:
        """The formats in which all rows are streamed as a file."""
        return tuple(name for name in cls.formats() if name in EXPORT_FORMATS)

    def get_authenticate_header(self, request: Request) -> str:
        """The header of a 401 that a view raises."""
        return REALM


CSV_SAFE = flag(
    "csv_safe",
    "true: csv for a spreadsheet: a ' before texts that it would take for a formula, and a byte order mark at the start;"
    " no effect on other formats",
)


class ExportView(ApiView):
    """A view whose rows can be exported, however many there are. Its parameters must include CSV_SAFE."""

    renderer_classes = (*ApiView.renderer_classes, *EXPORT_RENDERERS)

    @property
    def is_export(self) -> bool:
        """Whether the client asked for a file."""
        return isinstance(self.request.accepted_renderer, ExportRenderer)

    def export(self, parts: Iterator[Any], layout: Layout, *words: str) -> HttpResponseBase:
        """The rows of ``parts`` as a file with ``words`` in its name."""
        renderer = self.request.accepted_renderer
        makers: dict[str, Callable[[], Encoder]] = {
            "csv": lambda: CsvEncoder(layout, safe=self.values["csv_safe"]),
            "ndjson": lambda: NdjsonEncoder(layout),
            "parquet": lambda: ParquetEncoder(layout),
        }
        return export(
            self.request,
            parts,
            makers[str(renderer.format)],
            media_type=str(renderer.media_type),
            name=file_name(*words, extension=str(renderer.format)),
        )
