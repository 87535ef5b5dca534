"""How paths carry names and numbers."""

from __future__ import annotations

from django.urls import register_converter
from django.urls.converters import IntConverter, StringConverter


class KeyConverter(StringConverter):
    """The name of a host or a GPU. It may contain any character; a "/" arrives decoded."""

    regex = "(?s:.+)"


LARGEST_KEY = 10**18 - 1  # what every database takes as a number


class RowConverter(IntConverter):
    """The number of a row."""

    regex = "[0-9]{1,18}"


register_converter(KeyConverter, "key")
register_converter(RowConverter, "row")
