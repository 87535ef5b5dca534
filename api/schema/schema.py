"""The OpenAPI description, made from the tables of parameters and answers that the views use."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import msgspec
from django.http import QueryDict
from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiRequest, OpenApiResponse
from msgspec import UNSET, UnsetType

from api.auth.middleware import WHO_ASKS
from api.auth.openness import may_be_open
from api.converters import LARGEST_KEY
from api.errors import STORE_AWAY, BadRequest, error_body
from api.exports.formats import csv_line
from api.exports.readings import COLUMNS
from api.exports.usage import FIGURES
from api.models import TokenScope
from api.params import Parameter, format_of, read_parameters
from api.schema.answers import (
    BASE,
    GPU_ID,
    HOST_NAME,
    METRIC,
    Answer,
    ErrorAnswer,
    NotReadyAnswer,
    ReadingAnswer,
    RequestBody,
)
from api.schema.usage_answers import UsageAnswer
from api.views.base import ApiView, WriteOperation

_JSON = "application/json"
_ERRORS = {
    400: "A parameter, or a field of the body, cannot be used; the message names it and says what is allowed.",
    401: "The token is unknown, revoked or expired; or one is required and none was sent.",
    403: "The token is valid, but lacks the scope; or the user lacks the permission.",
    404: "Nothing was found under this name.",
    409: "This does not go with what is there: the event is over already, or there are too many mutes.",
    414: "The URL is longer than 8,190 bytes: ask for less at once.",
    415: "The body is not application/json.",
    429: "Too many requests; Retry-After says when to ask again.",
    503: "The store or the database does not answer, or the worker has no place for another heavy question; Retry-After says when to ask again.",
}
_SECONDS = {"schema": {"type": "integer", "minimum": 1}, "description": "seconds to wait before asking again"}
_HEADERS: dict[str, dict[str, Any]] = {
    "401": {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "how to authenticate (RFC 6750)"}},
    "429": {"Retry-After": _SECONDS},
    "503": {"Retry-After": _SECONDS},
}
# Links between operations: for each, the target, its parameter, and where in the body its value is.
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
    "events": tuple(
        (target, "id", "/data/0/id") for target in ("event", "acknowledge_event", "resolve_event", "note_event")
    ),
    "mutes": (("mute", "id", "/data/0/id"), ("end_mute", "id", "/data/0/id")),
    "add_mute": (("mute", "id", "/id"), ("end_mute", "id", "/id")),
}
# Defined in the settings.
_SCHEMES = ("token", "session")
_PATH_EXAMPLES = {"uuid": GPU_ID, "name": HOST_NAME, "id": 1}
_PATH_SCHEMAS: dict[str, dict[str, Any]] = {
    "id": {"type": "integer", "minimum": 0, "maximum": LARGEST_KEY},
}
# Examples of links, by operation.
_NEXT = {
    "gpus": f"{BASE}/gpus?page_size=1&page=2",
    "gpu_telemetry": f"{BASE}/gpus/{GPU_ID}/telemetry?limit=1&offset=1",
    "telemetry": f"{BASE}/telemetry?page_size=1&cursor=W3RydWUsMTc1Mjg3MTM1NiwiR1BVIiwiVVRJTCJd",
    "events": f"{BASE}/events?page_size=1&cursor=WzE3NTI4NzEzNTQwMDAwMDAsMV0",
}
_NOT_FOUND = {
    "host": "there is no host 'nowhere'",
    **dict.fromkeys(("event", "acknowledge_event", "resolve_event", "note_event"), "there is no event '1'"),
    **dict.fromkeys(("mute", "end_mute"), "there is no mute '1'"),
}
_WINDOW = {
    "timestamp": "2025-07-18T20:30:00Z",
    "host": HOST_NAME,
    "metric": METRIC,
    "agg": "mean",
    "unit": "%",
    "value": 71.25,
}


_PRIMITIVES: dict[object, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number", "format": "double"},
    bool: {"type": "boolean"},
}


def object_schema(answer: type[Answer], reference: Callable[[type[Answer]], dict[str, Any]]) -> dict[str, Any]:
    """The OpenAPI 3.0 schema of an answer. ``reference`` returns the schema for an answer nested in it."""
    hints = get_type_hints(answer, include_extras=True)
    fields = msgspec.structs.fields(answer)
    properties = {each.encode_name: _schema(hints[each.name], reference) for each in fields}
    required = sorted(each.encode_name for each in fields if each.required)
    schema: dict[str, Any] = {"type": "object", "description": answer.__doc__, "properties": properties}
    if issubclass(answer, RequestBody):
        schema["additionalProperties"] = False
    return schema | ({"required": required} if required else {})


def _schema(kind: Any, reference: Callable[[type[Answer]], dict[str, Any]]) -> dict[str, Any]:
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        schema = _schema(args[0], reference)
        for meta in args[1:]:
            schema |= meta.extra_json_schema or {}
            schema |= {"description": meta.description} if meta.description else {}
        return schema
    if origin in {Union, UnionType}:
        (one,) = [each for each in args if each not in {NoneType, UnsetType}]
        return _schema(one, reference) | ({"nullable": True} if NoneType in args else {})
    if origin is Literal:
        choices = "\n".join(f"* `{each}` - {each}" for each in args)
        return {"enum": list(args), "type": "string", "description": choices}
    if origin is list:
        return {"type": "array", "items": _schema(args[0], reference)}
    if origin is tuple:
        return {"type": "array", "items": {}}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(args[1], reference)}
    if kind is Any:
        return {}
    return dict(_PRIMITIVES[kind]) if kind in _PRIMITIVES else reference(kind)


def example_of(answer: type[Answer]) -> dict[str, Any]:
    """An example of an answer, from the examples of its fields. Optional fields without an example are left out."""
    hints = get_type_hints(answer, include_extras=True)
    examples = {each.encode_name: _example(hints[each.name]) for each in msgspec.structs.fields(answer)}
    return {name: example for name, example in examples.items() if example is not UNSET}


def _example(kind: Any) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        given = [example for meta in args[1:] for example in meta.examples or ()]
        return given[0] if given else _example(args[0])
    if origin is Literal:
        return args[0]
    if origin is list:
        return [_example(args[0])]
    if origin is dict:
        return {METRIC: _example(args[1])}
    if origin in {Union, UnionType}:
        return UNSET if UnsetType in args else None
    return example_of(kind)


class AnswerExtension(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]  # registers itself
    """Lets drf-spectacular describe an Answer: a component of its own, named as the class without ``Answer``."""

    target_class = Answer
    match_subclasses = True

    def get_name(self, auto_schema: AutoSchema, direction: str) -> str:
        """The component's name."""
        return str(self.target.__name__.removesuffix("Answer"))

    def map_serializer(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        """The component's schema."""
        return object_schema(self.target, lambda part: dict(auto_schema.resolve_serializer(part, direction).ref))


def answer_example(operation_id: str, answer: type[Answer]) -> dict[str, Any]:
    """An example of what an operation answers."""
    example = example_of(answer)
    return example | ({"next": _NEXT[operation_id]} if operation_id in _NEXT else {})


def file_example(operation_id: str, media_type: str) -> str:
    """An example of a file that an operation answers."""
    row, columns = _row_example(operation_id)
    if media_type == "text/csv":
        return csv_line(columns) + csv_line([row.get(column) for column in columns])
    if media_type == "application/x-ndjson":
        return json.dumps(row, separators=(",", ":")) + "\n"
    return "PAR1 (columns, their types and an index, in bytes) PAR1"


def _row_example(operation_id: str) -> tuple[Mapping[str, object], list[str]]:
    """A row of a file, and its columns."""
    match operation_id:
        case "query":
            return _WINDOW, list(_WINDOW)
        case "usage":
            example = example_of(UsageAnswer)
            row = {"start_time": example["start_time"], "end_time": example["end_time"], "namespace": "research"}
            row |= {name: example["data"][0][name] for name in FIGURES}
            return row, list(row)
    return example_of(ReadingAnswer), [column.name for column in COLUMNS]


class TableSchema(AutoSchema):
    """Describes an ApiView by its class attributes; any other view is left out."""

    @property
    def _table(self) -> ApiView:
        return cast(ApiView, self.view)

    def is_excluded(self) -> bool:
        """Pages and the schema itself are not described."""
        return not isinstance(self.view, ApiView)

    @property
    def _write(self) -> WriteOperation | None:
        """What this method changes; None for one that reads."""
        return self._table.writes.get(self.method)

    def get_operation_id(self) -> str:
        """The name of the call in generated clients."""
        return (self._write or self._table).operation_id

    def get_summary(self) -> str:
        """The operation in one line."""
        return (self._write or self._table).name

    def get_tags(self) -> list[str]:
        """The group in which it is listed."""
        return [self._table.tag]

    def get_request_serializer(self) -> Any:
        """The body of a request that changes something, with an example; None for others."""
        if self._write is None or self._write.body is None:
            return None
        return OpenApiRequest(self._write.body, examples=[_in_schema(example_of(self._write.body))])

    def get_auth(self) -> list[dict[str, list[str]]]:
        """A token or a login, or neither where reading is open."""
        if self._table.tag == "probes":
            return []
        ways: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]
        is_open = self._table.scope == TokenScope.READ and self._write is None and may_be_open()
        return [*ways, {}] if is_open else ways

    def get_operation(self, *args: Any, **kwargs: Any) -> Any:
        """Adds the headers of errors and the links of answers, which the base class cannot describe."""
        operation = super().get_operation(*args, **kwargs)
        if operation is None:
            return None
        for status, headers in _HEADERS.items():
            if status in operation["responses"]:
                operation["responses"][status]["headers"] = headers
        if links := _LINKS.get(self.get_operation_id()):
            operation["responses"][str(self._write.status if self._write else 200)]["links"] = {
                target: {"operationId": target, "parameters": {name: f"$response.body#{where}"}}
                for target, name, where in links
            }
        return operation

    def get_response_serializers(self) -> Any:
        """The answer and every error, each with an example. Errors are JSON, whatever format was asked for."""
        answers = (self._write or self._table).answer
        answer = OpenApiResponse(answers, examples=[_in_schema(answer_example(self.get_operation_id(), answers))])
        errors = {(status, _JSON): self._error(status) for status in self._statuses()}
        if self._write is not None:
            return {(self._write.status, _JSON): answer, **errors}
        files = {
            (200, media_type): OpenApiResponse(
                OpenApiTypes.BINARY, examples=[_in_schema(file_example(self._table.operation_id, media_type))]
            )
            for media_type in (
                str(each.media_type) for each in self._table.renderer_classes if each.format in self._table.exports()
            )
        }
        return {(200, _JSON): answer, **files, **errors}

    def _described(self) -> tuple[Parameter, ...]:
        """The view's parameters, without the format html, which is for people."""
        if self._write is not None:
            return ()
        if not self._table.exports():
            return self._table.parameters
        names = [name for name in self._table.formats() if name != "html"]
        return (*self._table.parameters, format_of(names))

    def _statuses(self) -> list[int]:
        found = set((self._write or self._table).error_statuses)
        if self._write is not None:
            found |= {403} if self._write.body is None else {403, 415}
        if self._table.tag != "probes":
            found |= {401, 414, 429, 503}
        if self._table.scope != TokenScope.READ:
            found.add(403)
        return sorted(found)

    def _error(self, status: int) -> OpenApiResponse:
        if status == 503 and self._table.operation_id == "ready":
            return OpenApiResponse(NotReadyAnswer, _ERRORS[status], [_in_schema(example_of(NotReadyAnswer))])
        body = msgspec.to_builtins(error_body(status, self._message(status)))
        return OpenApiResponse(ErrorAnswer, _ERRORS[status], [_in_schema(body)])

    def _message(self, status: int) -> str:
        match status:
            case 400:
                try:
                    known = () if self._write else self._table.parameters
                    read_parameters(QueryDict("colour=red"), (*known, self._table.format_parameter()))
                except BadRequest as error:
                    return str(error.detail)
            case 401:
                return WHO_ASKS
            case 403:
                return "the scope admin is required; yours is read"
            case 404:
                return _NOT_FOUND.get(self.get_operation_id(), "there is no GPU 'GPU-0'")
            case 409 if self.get_operation_id() == "add_mute":
                return "more than 1,000 mutes would count at once: end some, or mute a rule, a host or a tag"
            case 409:
                return "event 1 is closed: it takes notes only"
            case 414:
                return "Request Line is too large (9000 > 8190)"
            case 415:
                return "the body is text/plain: send application/json"
            case 429:
                return "too many requests: ask again in 3 s"
        return STORE_AWAY

    def get_override_parameters(self) -> list[Any]:
        """The parameters of the path and of the query."""
        in_path = [
            OpenApiParameter(
                name,
                _PATH_SCHEMAS.get(name, {"type": "string", "minLength": 1}),
                OpenApiParameter.PATH,
                description=text,
                examples=[_in_schema(_PATH_EXAMPLES[name])],
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


def _in_schema(value: object) -> OpenApiExample:
    return OpenApiExample("example", value=value)
