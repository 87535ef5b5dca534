"""What all pages have in common."""

from __future__ import annotations

import logging
from datetime import datetime
from time import time_ns
from typing import Any, ClassVar

from django.conf import settings
from django.db import DatabaseError
from django.urls import reverse
from django.utils import timezone
from django.views.generic import TemplateView

from dashboard.menu import entries
from dashboard.ranges import DEFAULT_PRESET, PRESETS, SHOWN_PRESETS, TimeRange, range_of
from health.queries import Ongoing, ongoing_now
from inventory.fleet import Fleet, fleet_now
from readings.times import SECOND, to_datetime
from stores.base import StoreError

logger = logging.getLogger(__name__)


def page_number(text: str, pages: int) -> int:
    """The page that a URL asks for, from 1 to ``pages``; the first where it is no number."""
    # Python reads no number of thousands of digits.
    return min(pages, max(1, int(text[:9]))) if text.isdecimal() else 1


class Page(TemplateView):
    """A page. Subclasses set ``title`` and ``menu`` (the menu's entry) and override ``page_context`` and ``data``.

    A page answers also while the database or the store is away: it says so, without the numbers.
    """

    title: ClassVar[str]
    menu: ClassVar[str] = ""
    shown_presets: ClassVar[tuple[str, ...]] = SHOWN_PRESETS
    default_preset: ClassVar[str] = DEFAULT_PRESET
    # As of this request; set before page_context.
    fleet: Fleet
    ongoing: Ongoing
    http_method_names = ["get", "head", "options"]  # noqa: RUF012 - declared so by Django

    def page_context(self) -> dict[str, Any]:
        """What the template needs beside what all have. May raise DatabaseError, StoreError or Http404."""
        return {}

    def data(self) -> dict[str, Any]:
        """What the page's script needs beside what all have."""
        return {}

    def page_title(self) -> str:
        """The title, which may depend on what is shown."""
        return self.title

    @property
    def range(self) -> TimeRange:
        """The range that the URL asks for."""
        return range_of(self.request.GET.dict(), self.anchor_ns, self.default_preset)

    @property
    def now(self) -> datetime:
        """When this page ends: now, or with the last reading of a capture that has ended."""
        return timezone.now() if self.anchor_ns is None else to_datetime(self.anchor_ns)

    def setup(self, request: Any, *args: Any, **kwargs: Any) -> None:
        super().setup(request, *args, **kwargs)
        self.anchor_ns: int | None = None
        self.newest_ns: int | None = None

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        away = ""
        try:
            self._find_newest()
            self.ongoing = ongoing_now()
            context["open_critical"] = self.ongoing.total.critical
            context |= self.page_context()
            data = self.data()
        except (DatabaseError, StoreError) as error:
            logger.warning("a page without its numbers: %s", error)
            away = "The inventory database" if isinstance(error, DatabaseError) else "The store of readings"
            data = {}
        shown = self.range
        return {
            **context,
            "title": self.page_title(),
            "menu": entries(self.menu),
            "range": shown,
            "presets": [name for name in PRESETS if name in self.shown_presets or name == shown.preset],
            "away": away,
            "newest_ns": self.newest_ns,
            "page_data": {
                "prefix": reverse("dashboard:fleet").rstrip("/"),
                "anchor": None if self.anchor_ns is None else self.anchor_ns // 1_000_000,
                "newest": None if self.newest_ns is None else self.newest_ns // 1_000_000,
                "stale_after": settings.STALE_AFTER * 1000,
                **data,
            },
        }

    def _find_newest(self) -> None:
        """Ranges of a capture that has ended end with it: the last hour of the clock would be empty."""
        self.fleet = fleet = fleet_now()
        self.newest_ns = newest = fleet.newest_ns
        if newest is not None and not fleet.live and newest < time_ns() - settings.STALE_AFTER * SECOND:
            self.anchor_ns = newest + SECOND
