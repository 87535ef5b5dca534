"""The OpenAPI description, made from the same tables that the views work by."""

from __future__ import annotations

from typing import Any, cast

from django.conf import settings
from django.http import QueryDict
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse

from api.auth.middleware import WHO_ASKS
from api.errors import STORE_AWAY, BadRequest, error_body
from api.models import ApiToken
from api.params import Parameter, format_of, read_parameters
from api.schema.examples import ANSWERS, FILES, GPU_ID, HOST_NAME, NO_SUCH_GPU, NOT_FOUND, NOT_READY
from api.schema.serializers import ErrorSerializer, NotReadySerializer
from api.views.base import ApiView

_JSON = "application/json"
_ERRORS = {
    400: "A parameter is not usable; the message names it and says what is allowed.",
    401: "The token is not known, was revoked or has expired; or there is none, and one is needed.",
    403: "The token is good, but not for this.",
    404: "There is no such thing.",
    414: "The address is longer than 8,190 bytes: ask for less at once.",
    429: "Too many requests; Retry-After says when to ask again.",
    503: "The store or the database does not answer; Retry-After says when to ask again.",
}
_SECONDS = {"schema": {"type": "integer", "minimum": 1}, "description": "seconds after which to ask again"}
_HEADERS: dict[str, dict[str, Any]] = {
    "401": {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "how to say who asks (RFC 6750)"}},
    "429": {"Retry-After": _SECONDS},
    "503": {"Retry-After": _SECONDS},
}
# Where an answer leads: operation, by operation, with the parameter and where in the body it stands.
_LINKS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "gpus": (
        ("gpu", "uuid", "/data/0"),
        ("gpu_telemetry", "uuid", "/data/0"),
        ("gpu_metrics", "uuid", "/data/0"),
    ),
    "gpu": (("gpu_telemetry", "uuid", "/id"), ("gpu_metrics", "uuid", "/id"), ("host", "name", "/hostname")),
    "gpu_telemetry": (("gpu", "uuid", "/data/0/uuid"),),
    "telemetry": (("gpu", "uuid", "/data/0/uuid"), ("host", "name", "/data/0/hostname")),
    "hosts": (("host", "name", "/data/0/name"),),
    "host": (("gpu", "uuid", "/gpus/0/id"),),
}
# Their definitions are in the settings.
_SCHEMES = ("token", "session")
_PATH_EXAMPLES = {"uuid": GPU_ID, "name": HOST_NAME}


class TableSchema(AutoSchema):
    """Describes an ApiView by its class attributes; any other view is left out."""

    @property
    def _table(self) -> ApiView:
        return cast(ApiView, self.view)

    def is_excluded(self) -> bool:
        """Pages and the schema itself are no part of the API."""
        return not isinstance(self.view, ApiView)

    def get_operation_id(self) -> str:
        """As generated clients will name the call."""
        return self._table.operation_id

    def get_summary(self) -> str:
        """One line for the list of operations."""
        return self._table.name

    def get_tags(self) -> list[str]:
        """The group it is listed under."""
        return [self._table.tag]

    def get_request_serializer(self) -> None:
        """Nothing is sent in."""

    def get_auth(self) -> list[dict[str, list[str]]]:
        """A token or a login; nothing at all where reading is open."""
        if self._table.tag == "probes":
            return []
        ways: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]
        is_open = self._table.scope == ApiToken.Scope.READ and not settings.API_AUTH_REQUIRED
        return [*ways, {}] if is_open else ways

    def get_operation(self, *args: Any, **kwargs: Any) -> Any:
        """Adds the headers of errors and the links of answers, for which the base class has no place."""
        operation = super().get_operation(*args, **kwargs)
        if operation is None:
            return None
        for status, headers in _HEADERS.items():
            if status in operation["responses"]:
                operation["responses"][status]["headers"] = headers
        if links := _LINKS.get(self._table.operation_id):
            operation["responses"]["200"]["links"] = {
                target: {"operationId": target, "parameters": {name: f"$response.body#{where}"}}
                for target, name, where in links
            }
        return operation

    def get_response_serializers(self) -> Any:
        """The answer and every error, each with an example. Errors are JSON, whatever was asked for."""
        answer = OpenApiResponse(self._table.answer, examples=[_example(ANSWERS[self._table.operation_id])])
        files = {
            (200, media_type): OpenApiResponse(
                OpenApiTypes.BINARY, examples=[_example(FILES[self._table.operation_id][media_type])]
            )
            for media_type in self._export_types()
        }
        errors = {(status, _JSON): self._error(status) for status in self._statuses()}
        return {(200, _JSON): answer, **files, **errors}

    def _export_types(self) -> list[str]:
        return [str(each.media_type) for each in self._table.renderer_classes if each.format in self._table.exports()]

    def _described(self) -> tuple[Parameter, ...]:
        """Its parameters; the page for people is no part of the API."""
        if not self._table.exports():
            return self._table.parameters
        names = [name for name in self._table.formats() if name != "html"]
        return (*self._table.parameters, format_of(names))

    def _statuses(self) -> list[int]:
        found = set(self._table.error_statuses)
        if self._table.tag != "probes":
            found |= {401, 414, 429, 503}
        if self._table.scope != ApiToken.Scope.READ:
            found.add(403)
        return sorted(found)

    def _error(self, status: int) -> OpenApiResponse:
        if status == 503 and self._table.operation_id == "ready":
            return OpenApiResponse(NotReadySerializer, _ERRORS[status], [_example(NOT_READY)])
        body = error_body(status, self._message(status))
        return OpenApiResponse(ErrorSerializer, _ERRORS[status], [_example(body)])

    def _message(self, status: int) -> str:
        match status:
            case 400:
                try:
                    read_parameters(QueryDict("colour=red"), (*self._table.parameters, self._table.format_parameter()))
                except BadRequest as error:
                    return str(error.detail)
            case 401:
                return WHO_ASKS
            case 403:
                return "this wants the scope admin; yours is read"
            case 404:
                return NOT_FOUND.get(self._table.operation_id, NO_SUCH_GPU)
            case 414:
                return "Request Line is too large (9000 > 8190)"
            case 429:
                return "too many requests: ask again in 3 s"
        return STORE_AWAY

    def get_override_parameters(self) -> list[Any]:
        """The view's table, and the parts of its path."""
        in_path = [
            OpenApiParameter(
                name,
                {"type": "string", "minLength": 1},
                OpenApiParameter.PATH,
                description=text,
                examples=[_example(_PATH_EXAMPLES[name])],
            )
            for name, text in self._table.path_help.items()
        ]
        in_query = [
            OpenApiParameter(
                each.name, dict(each.schema), OpenApiParameter.QUERY, description=each.help, required=each.required
            )
            for each in self._described()
        ]
        return in_path + in_query


def _example(value: object) -> OpenApiExample:
    return OpenApiExample("example", value=value)
