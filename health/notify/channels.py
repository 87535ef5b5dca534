"""The channels of NOTIFY_URLS: their names, and which events each of them wants. Whoever sends is in health.notify.delivery."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import NamedTuple

from django.conf import settings

from health.models import Event, Severity
from health.notify.errors import ChannelError

MOST_CHANNELS = 50
# From the least to the worst.
SEVERITIES: tuple[str, ...] = (Severity.INFO, Severity.WARNING, Severity.CRITICAL)
_FIELDS = ("severity", "rule", "host", "model", "namespace")
_ALLOWED = "use severity>=warning, rule=, host=, model=, namespace=, tag.NAME= or name=, with commas between them"
_URL = re.compile(r"(?:\[(?P<filters>[^\]]*)\])?(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.+)")
_FILTER = re.compile(r"(?P<field>[a-z]+(?:\.[A-Za-z][A-Za-z0-9._/-]{0,62})?)(?P<operator>>=|=)(?P<values>.+)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")

Tags = Mapping[str, str]


class ChannelFilter(NamedTuple):
    """A condition of a channel: one of the patterns (``*`` stands for any text) must fit the field, or the tag of that name."""

    field: str
    patterns: tuple[str, ...]
    tag: str = ""

    def fits(self, event: Event, severity: str, tags: Tags) -> bool:
        """Whether an event of this severity, with the tags of its GPU and host, fits."""
        value = (
            tags.get(self.tag, "") if self.tag else severity if self.field == "severity" else _value(self.field, event)
        )
        return any(fnmatchcase(value.casefold(), pattern) for pattern in self.patterns)


@dataclass(frozen=True, slots=True)
class Channel:
    """One of NOTIFY_URLS. Its ``name`` is safe to show and the same after a restart."""

    name: str
    url: str = field(repr=False)
    filters: tuple[ChannelFilter, ...] = ()

    def wants(self, event: Event, severity: str, tags: Tags) -> bool:
        """Whether all of its filters fit."""
        return all(each.fits(event, severity, tags) for each in self.filters)

    @property
    def asks_for_tags(self) -> bool:
        """Whether a filter is about a tag."""
        return any(each.tag for each in self.filters)


def configured_channels() -> tuple[Channel, ...]:
    """The channels of NOTIFY_URLS, in its order. Raises ChannelError."""
    return parse_channels(tuple(settings.NOTIFY_URLS))


@lru_cache(maxsize=8)
def parse_channels(urls: tuple[str, ...]) -> tuple[Channel, ...]:
    """Channels from URLs with filters before them. Raises ChannelError, which never shows a URL."""
    if len(urls) > MOST_CHANNELS:
        raise ChannelError(f"NOTIFY_URLS: {len(urls)} URLs: at most {MOST_CHANNELS} are allowed")
    channels = [_channel(number, text) for number, text in enumerate(urls, 1)]
    names = [channel.name for channel in channels]
    for number, name in enumerate(names, 1):
        if name in names[: number - 1]:
            raise ChannelError(
                f"NOTIFY_URLS: URL {number} is the same as URL {names.index(name) + 1}, or has the same name:"
                " give each another by [name=…]"
            )
    return tuple(channels)


def is_severe_enough(severity: str) -> bool:
    """Whether it is NOTIFY_SEVERITY at least."""
    return SEVERITIES.index(severity) >= SEVERITIES.index(settings.NOTIFY_SEVERITY)


def _channel(number: int, text: str) -> Channel:
    match = _URL.fullmatch(text)
    if match is None:
        raise ChannelError(
            f"NOTIFY_URLS: URL {number} is none: use scheme://… as Apprise has them, with filters in brackets before it if"
            " need be; blanks stand between URLs, and are %20 within one"
        )
    url = f"{match['scheme'].lower()}://{match['rest']}"
    name = f"{match['scheme'].lower()[:24]}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    filters = []
    for part in (match["filters"] or "").split(","):
        if not part:
            continue
        found = _FILTER.fullmatch(part)
        if found is None:
            raise ChannelError(f"NOTIFY_URLS: URL {number}: {part[:80]!r} is no filter: {_ALLOWED}")
        if found["field"] == "name":
            if found["operator"] != "=" or not _NAME.fullmatch(found["values"]):
                raise ChannelError(
                    f"NOTIFY_URLS: URL {number}: name= takes up to 32 letters, digits, dots, dashes and underscores"
                )
            name = found["values"]
        else:
            filters.append(_filter(number, found["field"], found["operator"], found["values"]))
    return Channel(name, url, tuple(filters))


def _filter(number: int, field_name: str, operator: str, values: str) -> ChannelFilter:
    name, _, tag = field_name.partition(".")
    patterns = tuple(each.casefold() for each in values.split("|") if each)
    if (name == "tag") != bool(tag) or (not tag and name not in _FIELDS) or not patterns:
        raise ChannelError(f"NOTIFY_URLS: URL {number}: {field_name[:80]!r} cannot be filtered by: {_ALLOWED}")
    if operator == ">=" and name != "severity":
        raise ChannelError(f"NOTIFY_URLS: URL {number}: >= is for severity alone: use {field_name}={values[:40]}")
    if name == "severity":
        unknown = [each for each in patterns if each not in SEVERITIES]
        if unknown or (operator == ">=" and len(patterns) > 1):
            raise ChannelError(
                f"NOTIFY_URLS: URL {number}: severities are {', '.join(SEVERITIES)}: use severity>=warning"
            )
        if operator == ">=":
            patterns = SEVERITIES[SEVERITIES.index(patterns[0]) :]
    return ChannelFilter(name, patterns, tag)


def _value(field_name: str, event: Event) -> str:
    return {
        "rule": event.rule,
        "host": event.hostname,
        "model": event.model_name,
        "namespace": event.namespace,
    }[field_name]


def grouping_of(event: Event, names: Sequence[str], tags: Tags) -> tuple[str, ...]:
    """What an event has under these names of NOTIFY_GROUP_BY: fields, or else tags."""
    return tuple(
        event.severity if name == "severity" else _value(name, event) if name in _FIELDS else tags.get(name, "")
        for name in names
    )


def needs_tags(names: Sequence[str]) -> bool:
    """Whether one of these names is that of a tag."""
    return any(name not in _FIELDS for name in names)
