"""The base of views whose rows can be exported as a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.http import HttpResponseBase

from api.browse.renderers import EXPORT_RENDERERS, ExportRenderer
from api.exports.formats import CsvEncoder, Encoder, Layout, NdjsonEncoder, ParquetEncoder
from api.exports.stream import export, file_name
from api.params import flag
from api.views.base import ApiView

CSV_SAFE = flag(
    "csv_safe",
    "true: in csv, put a ' before texts that a spreadsheet would take for a formula; no effect on other formats",
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
