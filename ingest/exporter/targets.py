"""The exporters to scrape: URLs, files that list them, and DNS names with many addresses."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from ingest.errors import SourceError
from ingest.shard import WHOLE, Shard
from readings.text import hide_passwords

logger = logging.getLogger(__name__)

DEFAULT_PORT = 9400
DEFAULT_PATH = "/metrics"


class Target(NamedTuple):
    """One exporter. ``url`` holds no secrets; ``user`` and ``password`` come from the URL, empty if it has none."""

    url: str
    host: str
    user: str = ""
    password: str = ""


def parse_target(text: str) -> Target:
    """A URL, or host:port, as a target. Raises ValueError."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        port = parts.port
        usable = parts.scheme in {"http", "https"} and port != 0 and not any(map(str.isspace, url))
    except ValueError:
        usable = False
    if not usable or not parts.hostname:
        raise ValueError(
            f"{hide_passwords(text)!r} is not an exporter's URL: use http://host:9400/metrics or https://…"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if "://" not in text:
        port = port or DEFAULT_PORT
    netloc = host if port is None else f"{host}:{port}"
    path = parts.path if parts.path not in {"", "/"} else DEFAULT_PATH
    return Target(
        urlunsplit((parts.scheme, netloc, path, parts.query, "")),
        parts.hostname,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


class Targets:
    """The exporters that TARGETS names. Every ``resolve`` reads the files and looks up the names again."""

    def __init__(self, items: Sequence[str], shard: Shard = WHOLE) -> None:
        if not items:
            raise SourceError(
                "TARGETS (--targets): no exporter given: name URLs, a file that lists them, or a DNS name"
            )
        self._items = list(items)
        self._shard = shard
        self._last: dict[str, list[Target]] = {}

    async def resolve(self) -> list[Target]:
        """The current targets of our shard, each once, in order. Raises SourceError for an item that never worked."""
        by_url: dict[str, Target] = {}
        for item in self._items:
            try:
                targets = await self._expand(item)
            except (OSError, ValueError) as error:
                if item not in self._last:
                    raise SourceError(f"TARGETS (--targets): {_reason(item, error)}") from error
                logger.debug("%s: %s: keeping the previous targets", hide_passwords(item), error)
                targets = self._last[item]
            self._last[item] = targets
            by_url.update((target.url, target) for target in targets)
        return [target for target in by_url.values() if self._shard.has(target.url)]

    async def _expand(self, item: str) -> list[Target]:
        if "://" in item:
            return [parse_target(item)]
        if _is_file(item):
            return _listed(await asyncio.to_thread(Path(item).read_text, "utf-8"))
        name = parse_target(item)
        port = urlsplit(name.url).port or DEFAULT_PORT
        try:
            answers = await asyncio.get_running_loop().getaddrinfo(name.host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if item in self._last:
                raise
            # A headless service has no address while it has no pods.
            logger.warning("%s: %s: no exporter for now", hide_passwords(item), error.strerror)
            return []
        addresses = list(dict.fromkeys(str(each[4][0]) for each in answers))
        if len({socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses}) > 1:
            addresses = [address for address in addresses if ":" not in address]  # the same machines twice
        if len(addresses) == 1:
            return [name]
        return [parse_target(f"[{each}]:{port}" if ":" in each else f"{each}:{port}") for each in addresses]


def _is_file(item: str) -> bool:
    return os.sep in item or item.endswith((".txt", ".json", ".list")) or os.path.isfile(item)


def _listed(text: str) -> list[Target]:
    """One target a line with # comments, or Prometheus' file_sd JSON. Raises ValueError."""
    if text.lstrip()[:1] == "[":
        groups: Any = json.loads(text)
        try:
            return [parse_target(str(each)) for group in groups for each in group["targets"]]
        except (TypeError, KeyError):
            raise ValueError('is no list of targets: use [{"targets": ["host:9400"]}]') from None
    lines = (line.split("#", 1)[0].strip() for line in text.splitlines())
    return [parse_target(line) for line in lines if line]


def _reason(item: str, error: Exception) -> str:
    shown = hide_passwords(item)
    if isinstance(error, OSError):
        return f"{shown!r}: {error.strerror or error}"
    return str(error) if shown in str(error) else f"{shown!r}: {error}"
