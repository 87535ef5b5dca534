"""How paths carry names."""

from __future__ import annotations

from django.urls import register_converter
from django.urls.converters import StringConverter


class KeyConverter(StringConverter):
    """The name of a host or a GPU. It may contain any character; a "/" arrives decoded."""

    regex = "(?s:.+)"


register_converter(KeyConverter, "key")
