"""The database's times as text, read once each: the same ones are asked for again and again."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


@lru_cache(maxsize=32_768)
def parse_moment(text: str) -> datetime:
    """A DateTimeField cast to text, as SQLite (no zone, meaning UTC) and PostgreSQL (with its zone) write it."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
