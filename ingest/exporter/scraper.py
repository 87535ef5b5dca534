"""The dcgm source: scrapes each exporter every interval, independently of the others."""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import ssl
import time
from dataclasses import dataclass, field
from zlib import crc32

import aiohttp

from ingest.errors import SourceError
from ingest.exporter.exposition import Exposition, NotMetrics, Scraped
from ingest.exporter.targets import Target, Targets
from ingest.parts import Parts
from ingest.samples import RefusedRow
from ingest.streamer.live import Give, SourceBatch
from telemetry_site.concurrency import pause
from telemetry_site.outage import one_line

logger = logging.getLogger(__name__)

RESOLVE_SECONDS = 30.0
# Larger answers are parsed in a thread, so that the other scrapes go on.
PARSE_HERE_BYTES = 256 * 1024
_ACCEPT = "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.5, */*;q=0.1"
# Random delay of a scrape, as a share of the interval, so that many streamers and exporters do not fall into step.
_JITTER = 0.05
# Bad lines remembered per exporter: each becomes a dead letter once, not in every scrape.
_MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapeConfig:
    """How exporters are scraped. Seconds and bytes; an empty ``ca_file`` means the system's certificates."""

    interval: float = 5.0
    timeout: float = 5.0
    max_bytes: int = 64 << 20
    token: str = ""
    user: str = ""
    password: str = ""
    ca_file: str = ""


@dataclass(slots=True)
class TargetStatus:
    """The state of an exporter. ``up`` is None before its first answer, ``gpus`` the number in its last one."""

    up: bool | None = None
    duration_s: float = 0.0
    samples: int = 0
    scrapes: int = 0
    failures: int = 0
    reason: str = ""
    gpus: int = 0


@dataclass(slots=True)
class _Watched:
    target: Target
    exposition: Exposition
    status: TargetStatus = field(default_factory=TargetStatus)
    buried: dict[int, bool] = field(default_factory=dict)
    has_no_gpu: bool = False


class ScrapeFailed(Exception):
    """A scrape without metrics. The text is one line."""


class Scraper:
    """A LiveSource. ``statuses`` has the state of each target by URL. ``parts``: labels that tell rows of one GPU apart."""

    def __init__(self, config: ScrapeConfig, targets: Targets, parts: Parts | None = None) -> None:
        self.name = "dcgm"
        self.statuses: dict[str, TargetStatus] = {}
        self._config = config
        self._targets = targets
        self._parts = Parts() if parts is None else parts
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self, give: Give, stop: asyncio.Event, *, once: bool) -> None:
        """Scrape until ``stop``; with ``once`` each target once. Raises SourceError."""
        targets = await self._targets.resolve()
        logger.info("%d exporters, each every %g s", len(targets), self._config.interval)
        async with self._open_session() as session:
            if once:
                watched = [self._watch(target) for target in targets]
                await asyncio.gather(*[self._scrape_and_give(session, each, give) for each in watched])
                return
            try:
                while True:
                    self._follow(session, targets, give)
                    if await pause(stop, RESOLVE_SECONDS):
                        return
                    targets = await self._targets.resolve()
            finally:
                for task in self._tasks.values():
                    task.cancel()
                await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _open_session(self) -> aiohttp.ClientSession:
        config = self._config
        try:
            context = ssl.create_default_context(cafile=config.ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise SourceError(
                f"SCRAPE_TLS_CA (--scrape-tls-ca): {config.ca_file!r} is not a file of certificates: {one_line(error)}"
            ) from error
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=context, keepalive_timeout=config.interval + 15),
            timeout=aiohttp.ClientTimeout(total=config.timeout),
            headers={"Accept": _ACCEPT, "User-Agent": "gpu-telemetry-pipeline"},
            max_line_size=1 << 16,
            max_field_size=1 << 16,
        )

    def _watch(self, target: Target) -> _Watched:
        watched = _Watched(target, Exposition(target.host, self._parts))
        self.statuses[target.url] = watched.status
        return watched

    def _follow(self, session: aiohttp.ClientSession, targets: list[Target], give: Give) -> None:
        """Start a task for each new target, and cancel those of targets that are gone."""
        urls = {target.url for target in targets}
        for url in self._tasks.keys() - urls:
            self._tasks.pop(url).cancel()
            del self.statuses[url]
            logger.info("%s is no longer a target", url)
        for target in targets:
            if target.url not in self._tasks:
                self._tasks[target.url] = asyncio.create_task(self._repeat(session, self._watch(target), give))

    async def _repeat(self, session: aiohttp.ClientSession, watched: _Watched, give: Give) -> None:
        interval = self._config.interval
        # Each target has its own place in the interval, the same after a restart. The first scrape waits for a second at most.
        place = crc32(watched.target.url.encode()) / (1 << 32)
        due = time.monotonic() + place * min(interval, 1.0)
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic() + random.uniform(0, _JITTER * interval)))  # noqa: S311
            try:
                await self._scrape_and_give(session, watched, give)
            except Exception:  # a bug of ours costs this scrape, not the target
                logger.exception("%s: the scrape cannot be handled", watched.target.url)
            due = max(due + interval, time.monotonic())

    async def _scrape_and_give(self, session: aiohttp.ClientSession, watched: _Watched, give: Give) -> None:
        status = watched.status
        status.scrapes += 1
        began = time.monotonic()
        try:
            scraped = await self._scrape(session, watched)
        except ScrapeFailed as error:
            status.duration_s, status.samples, status.gpus = time.monotonic() - began, 0, 0
            status.failures += 1
            self._note(watched, up=False, reason=str(error))
            return
        status.duration_s, status.samples = time.monotonic() - began, len(scraped.samples)
        self._note(watched, up=True, reason="")
        self._note_gpus(watched, scraped.gpus)
        for remark in scraped.remarks:
            logger.info("%s: %s: %s", watched.target.url, remark.reason, remark.detail)
        for line in scraped.unsupported:
            logger.info("%s: %s", watched.target.url, line)
        give(SourceBatch(scraped.samples, _new_ones(watched, scraped), scraped.counts, watched.target.url))

    def _note(self, watched: _Watched, *, up: bool, reason: str) -> None:
        status = watched.status
        if status.up is not up:
            if not up:
                logger.warning("%s is down: %s", watched.target.url, reason)
            elif status.up is False:
                logger.info("%s is up again", watched.target.url)
        status.up, status.reason = up, reason

    def _note_gpus(self, watched: _Watched, gpus: int) -> None:
        """Say when an exporter that answers begins or ends to name no GPU: it is no healthy one."""
        status, url = watched.status, watched.target.url
        if gpus == 0 and not watched.has_no_gpu:
            watched.has_no_gpu = True
            logger.warning("%s answers without one GPU", url)
        elif gpus and watched.has_no_gpu:
            watched.has_no_gpu = False
            logger.info("%s has %d GPUs again", url, gpus)
        status.gpus = gpus

    async def _scrape(self, session: aiohttp.ClientSession, watched: _Watched) -> Scraped:
        now_ns = time.time_ns()
        try:
            body = await self._fetch(session, watched.target)
        except TimeoutError:
            raise ScrapeFailed(f"no complete answer within {self._config.timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ScrapeFailed(one_line(error)) from error
        try:
            if len(body) <= PARSE_HERE_BYTES:
                return watched.exposition.read(body.decode("utf-8", "replace"), now_ns)
            return await asyncio.to_thread(lambda: watched.exposition.read(body.decode("utf-8", "replace"), now_ns))
        except NotMetrics as error:
            raise ScrapeFailed(str(error)) from error

    async def _fetch(self, session: aiohttp.ClientSession, target: Target) -> bytes:
        limit = self._config.max_bytes
        async with session.get(target.url, headers=self._authorization(target), allow_redirects=False) as answer:
            if answer.status != 200:
                raise ScrapeFailed(f"answers HTTP {answer.status} {answer.reason}")
            if answer.content_type in {"text/html", "application/json"}:
                raise ScrapeFailed(f"answers {answer.content_type}, not metrics")
            pieces: list[bytes] = []
            size = 0
            async for piece in answer.content.iter_any():
                size += len(piece)
                if size > limit:
                    raise ScrapeFailed(f"the answer is larger than {limit} bytes (SCRAPE_MAX_BYTES)")
                pieces.append(piece)
        return b"".join(pieces)

    def _authorization(self, target: Target) -> dict[str, str]:
        config = self._config
        if config.token and not target.user:
            return {"Authorization": f"Bearer {config.token}"}
        user, password = (target.user, target.password) if target.user else (config.user, config.password)
        if not user:
            return {}
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def _new_ones(watched: _Watched, scraped: Scraped) -> list[RefusedRow]:
    """Bad lines that no earlier scrape had."""
    fresh = []
    buried = watched.buried
    for row in scraped.refused:
        key = hash((row.reason, row.raw.rpartition("}")[0] or row.raw))
        if buried.pop(key, True):
            fresh.append(row)
        buried[key] = False  # now the last to be forgotten
    while len(buried) > _MOST_REMEMBERED:
        del buried[next(iter(buried))]
    return fresh
