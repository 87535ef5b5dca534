"""Which filters the admin's lists take: those that a database answers quickly. Staff can write any into a URL."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import SuspiciousOperation
from django.db.models import Field, JSONField, QuerySet
from django.http import HttpRequest

MOST_WORDS = 32
# The others read every row, and a regular expression may take for ever on one of them.
_CHEAP = frozenset(
    {"exact", "in", "isnull", "isempty", "gt", "gte", "lt", "lte", "range", "year", "month", "day", "date"}
)
_COSTLY = frozenset({*Field.class_lookups, *JSONField.class_lookups}) - _CHEAP


class CheapLookups(admin.ModelAdmin[Any]):
    """A list that takes no costly filter, and no search for many words."""

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Whether the URL may filter by this. If not, the answer is a 400."""
        if _COSTLY.intersection(lookup.split("__")[1:]):
            return False
        return super().lookup_allowed(lookup, value, request)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """The rows that match a search. Raises SuspiciousOperation, a 400, for too many words."""
        if len(search_term.split()) > MOST_WORDS:
            raise SuspiciousOperation(f"search for at most {MOST_WORDS} words")
        return super().get_search_results(request, queryset, search_term)
