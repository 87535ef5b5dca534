"""The OpenAPI description, made from the same tables that the views work by."""

from __future__ import annotations

from typing import Any, cast

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse

from api.params import Parameter, format_of
from api.serializers import ErrorSerializer
from api.views.base import ApiView

_ERRORS = {
    400: "A parameter is not usable; the message names it and says what is allowed.",
    404: "There is no such thing.",
    503: "The store or the database does not answer; Retry-After says when to ask again.",
}


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

    def get_response_serializers(self) -> Any:
        """The answer and every error."""
        errors = {
            status: OpenApiResponse(ErrorSerializer, description=_ERRORS[status])
            for status in self._table.error_statuses
        }
        files = {(200, media_type): OpenApiTypes.BINARY for media_type in self._export_types()}
        return {(200, "application/json"): self._table.answer, **files, **errors}

    def _export_types(self) -> list[str]:
        return [str(each.media_type) for each in self._table.renderer_classes if each.format in self._table.exports()]

    def _described(self) -> tuple[Parameter, ...]:
        """Its parameters; the page for people is no part of the API."""
        if not self._table.exports():
            return self._table.parameters
        names = [name for name in self._table.formats() if name != "html"]
        return (*self._table.parameters, format_of(names))

    def get_override_parameters(self) -> list[Any]:
        """The view's table, and the parts of its path."""
        in_path = [
            OpenApiParameter(name, str, OpenApiParameter.PATH, description=text)
            for name, text in self._table.path_help.items()
        ]
        in_query = [
            OpenApiParameter(each.name, dict(each.schema), OpenApiParameter.QUERY, description=each.help)
            for each in self._described()
        ]
        return in_path + in_query
