"""The OpenAPI description, made from the same tables that the views work by."""

from __future__ import annotations

from typing import Any, cast

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse

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
        return {200: self._table.answer, **errors}

    def get_override_parameters(self) -> list[Any]:
        """The view's table, and the parts of its path."""
        in_path = [
            OpenApiParameter(name, str, OpenApiParameter.PATH, description=text)
            for name, text in self._table.path_help.items()
        ]
        in_query = [
            OpenApiParameter(
                each.name, dict(each.schema), OpenApiParameter.QUERY, description=each.help, required=each.required
            )
            for each in self._table.parameters
        ]
        return in_path + in_query
