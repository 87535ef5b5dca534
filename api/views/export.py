"""What views share whose rows can be had as a file."""

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
    "true: in csv, a text that a spreadsheet would take for a formula gets a ' in front; no effect on other formats",
)


class ExportView(ApiView):
    """A view whose rows can be had as a file, however many they are. Its parameters have CSV_SAFE among them."""

    renderer_classes = (*ApiView.renderer_classes, *EXPORT_RENDERERS)

    @property
    def is_export(self) -> bool:
        """Whether that was asked for."""
        return isinstance(self.request.accepted_renderer, ExportRenderer)

    def export(self, parts: Iterator[Any], layout: Layout, *words: str) -> HttpResponseBase:
        """The rows of ``parts`` as a file that is named by ``words``."""
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
