"""Bodies of requests: JSON objects, each with a table of its fields as answers have."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec
from django.http import HttpRequest
from rest_framework.exceptions import UnsupportedMediaType

from api.errors import BadRequest
from api.schema.answers import RequestBody

_T = TypeVar("_T", bound=RequestBody)
_JSON = "application/json"
# Line breaks and tabs are text.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def read_body(request: HttpRequest, kind: type[_T]) -> _T:
    """The body as an object. No body at all is an empty object. Raises BadRequest naming the field, or UnsupportedMediaType."""
    data = request.body
    if data and request.content_type != _JSON:
        given = (request.content_type or "none")[:80]
        raise UnsupportedMediaType(given, f"the body is {given}: send {_JSON}")
    try:
        body = msgspec.json.decode(data or b"{}", type=kind)
    except msgspec.ValidationError as error:
        known = ", ".join(each.encode_name for each in msgspec.structs.fields(kind))
        raise BadRequest(f"the body cannot be used: {error}; known here: {known}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    for each in msgspec.structs.fields(kind):
        value = getattr(body, each.name)
        if isinstance(value, str) and _CONTROL.search(value):
            raise BadRequest(f"{each.encode_name} holds control characters")
    return body
