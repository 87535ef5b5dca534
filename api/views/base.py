"""What every view of the API shares: its table of parameters, and what the schema says of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from api.auth.middleware import REALM, check_scope
from api.browse.renderers import ExportRenderer, JsonRenderer
from api.models import ApiToken
from api.params import EXPORT_FORMATS, Parameter, format_of, read_parameters
from api.schema.answers import Answer


class ApiView(APIView):
    """A read-only view. Subclasses fill the table; ``values`` holds the parsed parameters when ``get`` runs.

    ``answer`` documents the body of a 200; ``scope`` is what a token needs (reading is judged before any view); ``path_help`` explains the parts of the path by name.
    """

    name: ClassVar[str]
    tag: ClassVar[str]
    operation_id: ClassVar[str]
    answer: ClassVar[type[Answer]]
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    path_help: ClassVar[Mapping[str, str]] = MappingProxyType({})
    error_statuses: ClassVar[tuple[int, ...]] = (400, 503)
    scope: ClassVar[str] = ApiToken.Scope.READ

    values: dict[str, Any]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Read the parameters before the method runs. Raises BadRequest."""
        super().initial(request, *args, **kwargs)
        if self.scope != ApiToken.Scope.READ:
            check_scope(request._request, self.scope)
        if request.method in {"GET", "HEAD"}:
            self.values = read_parameters(request.query_params, (*self.parameters, self.format_parameter()))

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        """An export is made by the view; what it answers otherwise, as an error, is JSON."""
        if isinstance(response, Response) and isinstance(getattr(request, "accepted_renderer", None), ExportRenderer):
            request.accepted_renderer, request.accepted_media_type = JsonRenderer(), str(JsonRenderer.media_type)
        return super().finalize_response(request, response, *args, **kwargs)

    @classmethod
    def formats(cls) -> tuple[str, ...]:
        """What its answer can be had in."""
        return tuple(str(renderer.format) for renderer in cls.renderer_classes)

    @classmethod
    def format_parameter(cls) -> Parameter:
        """The parameter that chooses among them."""
        return format_of(cls.formats())

    @classmethod
    def exports(cls) -> tuple[str, ...]:
        """The formats in which it sends all rows as a file."""
        return tuple(name for name in cls.formats() if name in EXPORT_FORMATS)

    def get_authenticate_header(self, request: Request) -> str:
        """What goes with a 401 of a view's own."""
        return REALM
