"""The broker's service: accepts clients, commits their publishes to the log, and answers over HTTP."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from broker.errors import BrokerError, ListenError, LogFailed
from broker.log.batch import RecordBatch
from broker.log.log import Drop, Log, LogConfig
from broker.protocol import messages
from broker.protocol.connection import Publish
from broker.server.acceptor import Acceptor
from broker.server.committer import Committer
from broker.server.delivery import Delivery
from broker.server.figures import CachedFigures
from broker.server.health import Health
from broker.server.http import JSON, HttpServer, Route, json_answer
from broker.server.metrics import build_stats, count_missed, encode_stats, exposition
from broker.server.places import ConnectionPlaces
from broker.server.session import Session
from broker.server.state import BrokerState, ServerConfig
from broker.server.worker import Worker

logger = logging.getLogger(__name__)


# How long a stop waits for a thread that is stuck in a disk call.
THREAD_END_S = 1.0


class BrokerServer(BrokerState[Session]):
    """Serves one open log: ``start`` it, wait for ``failed`` or a reason to stop, then ``stop`` it. The log stays open."""

    def __init__(self, log: Log, config: ServerConfig) -> None:
        super().__init__(log, config)
        self.port = 0
        self.http_port = 0
        self._upkeep = False
        # Strangers are only those who must send a token and have not.
        strangers = config.max_strangers if config.limits.token else config.max_connections
        self.places = ConnectionPlaces(config.max_connections, strangers)
        self.figures = CachedFigures(lambda: encode_stats(self))
        self._exposition = CachedFigures(lambda: exposition(self))
        self._tcp = Acceptor(
            lambda guest: Session(self, guest), self.places, self.lines, config.tls, config.limits.hello_s
        )

    async def start(self) -> None:
        """Listen. Raises ListenError if an address is not available."""
        loop = asyncio.get_running_loop()
        self.failed = loop.create_future()
        self.writer = Worker("broker-writer")
        self.reader = Worker("broker-reader")
        self.committer = Committer[Publish](
            self.log, self.writer, on_written=self._written, on_refused=self._refused, on_failed=self.fail
        )
        self.delivery = Delivery(self.log, self.reader)
        self.health = Health(self)
        self._http = HttpServer(self._routes(), self.config.http_token, self.config.http_connections, self.lines)
        try:
            await self._listen()
        except BaseException:
            self._tcp.close()
            await self._close_threads()
            raise
        self._ticker = loop.create_task(self._tick(), name="broker-tick")
        self._ticker.add_done_callback(self._ticker_done)

    async def stop(self) -> None:
        """Stop in order: no new clients, no more requests, answer, flush, disconnect. Idempotent."""
        if self.stopping:
            return
        self.stopping = True
        self._tcp.close()
        for handler in list(self.connections):
            handler.stop_reading()
        try:
            await asyncio.wait_for(self.committer.wait_idle(), self.config.answer_s)
        except TimeoutError:
            logger.warning("stopping with publishes that are not on the disk yet: they stay unanswered")
        for handler in list(self.connections):
            handler.say_goodbye()
        if self.connections:
            closing = [handler.closed for handler in self.connections]
            _, late = await asyncio.wait(closing, timeout=self.config.flush_s)
            if late:
                logger.info("%d clients did not read what was sent to them", len(late))
        for handler in list(self.connections):
            handler.abort()
        self._ticker.cancel()
        await asyncio.gather(self._ticker, return_exceptions=True)
        self.health.close()
        await self._http.stop()
        await self._close_threads()

    def fail(self, error: BaseException) -> None:
        """The log failed: drop every client without an answer, and set ``failed`` so that the caller stops the broker."""
        if not self.failed.done():
            logger.critical("the log failed: %s", error)
            self.failed.set_result(error)
        for handler in list(self.connections):
            handler.abort()

    def refusal_told(self) -> None:
        """A connection without a place has ended."""
        self._tcp.refused -= 1

    def stats(self) -> dict[str, Any]:
        """Returns the figures of /stats and get_stats."""
        return build_stats(self)

    def _routes(self) -> dict[str, Route]:
        async def health() -> web.Response:
            report = await self.health.check()
            status = 503 if report.status == "unhealthy" else 200
            return json_answer({"status": report.status, "reasons": report.reasons}, status)

        async def live() -> web.Response:
            # Says only that the loop runs: a restart would not mend a full disk, and would interrupt the readers.
            return json_answer({"status": "alive"})

        async def stats() -> web.Response:
            return web.Response(body=self.figures.get() + b"\n", headers={"Content-Type": JSON})

        async def metrics() -> web.Response:
            body, content_type = self._exposition.get()
            return web.Response(body=body, headers={"Content-Type": content_type})

        return {
            "/live": Route(live, False),
            "/health": Route(health, False),
            "/stats": Route(stats, True),
            "/metrics": Route(metrics, True),
        }

    async def _listen(self) -> None:
        config = self.config
        where = f"{config.host}:{config.port}"
        try:
            self.port = await self._tcp.listen(config.host, config.port)
            where = f"{config.http_host}:{config.http_port} (HTTP)"
            self.http_port = await self._http.start(config.http_host, config.http_port, config.http_tls)
        except OSError as error:
            # asyncio's own text repeats the address. A name that does not resolve has a negative errno.
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise ListenError(f"cannot listen on {where}: {reason or error}") from error

    async def _close_threads(self) -> None:
        if not all(await asyncio.gather(self.reader.close(THREAD_END_S), self.writer.close(THREAD_END_S))):
            logger.error("the disk still does not answer: stopping without it")

    # The commit path

    def _written(self, batch: RecordBatch, publishes: Sequence[Publish]) -> None:
        answered: dict[Session, None] = {}
        for publish, places in zip(publishes, batch.places, strict=True):
            answers: list[bytes] = []
            done = 0
            for offset, count, duplicate in places:
                marks = publish.marks[done : done + count]
                checksum = batch.checksums.get(offset, "") if duplicate else ""
                answers.append(messages.publish_responses(offset, count, marks, duplicate=duplicate, checksum=checksum))
                done += count
            publish.owner.answer(publish, b"".join(answers))
            answered[publish.owner] = None
            self.counters.answered += done
        self.counters.duplicates += batch.duplicates
        for handler in answered:
            handler.after_answers()
        self.delivery.batch_written(batch)

    def _refused(self, publishes: Sequence[Publish], error: BrokerError) -> None:
        answered: dict[Session, None] = {}
        for publish in publishes:
            count = len(publish.payloads)
            marks = publish.marks or [b""] * count
            publish.owner.answer(publish, b"".join(messages.error_frame(error, mark) for mark in marks))
            answered[publish.owner] = None
            self.counters.refused += count
            self.counters.errors[error.code] += count
        self.health.forget_probe()
        for handler in answered:
            handler.after_answers()

    # Upkeep

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        interval = self.config.tick_s
        while True:
            due = loop.time() + interval
            await asyncio.sleep(interval)
            now = loop.time()
            self.loop_lag = max(0.0, now - due)
            for handler in list(self.connections):
                handler.check_time(now)
            if not self._upkeep:  # never a second one behind a slow disk
                self._upkeep = True
                self.writer.submit(self.log.tick, self._upkeep_done)

    def _upkeep_done(self, drop: Drop | None, error: BaseException | None) -> None:
        self._upkeep = False
        if drop is not None:
            for subscriber_id, missed in count_missed(self, drop).items():
                self.counters.missed[subscriber_id] += missed
                logger.warning("subscriber %s missed %d messages that retention dropped", subscriber_id, missed)
        if isinstance(error, BrokerError) and not isinstance(error, LogFailed):
            logger.warning("the log's upkeep failed: %s", error)
        elif error is not None:
            self.fail(error)

    def _ticker_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)


@asynccontextmanager
async def serving(directory: Path, log_config: LogConfig, config: ServerConfig) -> AsyncIterator[BrokerServer]:
    """Serves inside the block and stops in order after it.

    Raises LogLocked, LogUnusable or LogFailed for the directory, ListenError for the addresses.
    """
    log = await asyncio.to_thread(Log.open, directory, log_config)
    try:
        server = BrokerServer(log, config)
        await server.start()
        logger.info(
            "listening on %(host)s:%(port)d, HTTP on %(http_host)s:%(http_port)d",
            {"host": config.host, "port": server.port, "http_host": config.http_host, "http_port": server.http_port},
        )
        try:
            yield server
        finally:
            await server.stop()
    finally:
        await asyncio.to_thread(log.close)


async def run(directory: Path, log_config: LogConfig, config: ServerConfig, stop: asyncio.Event) -> None:
    """Serves until ``stop`` is set. Raises what ``serving`` raises, and LogFailed if the log fails meanwhile."""
    async with serving(directory, log_config, config) as server:
        stopped = asyncio.create_task(stop.wait(), name="broker-stop")
        ends: list[asyncio.Future[Any]] = [stopped, server.failed]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        logger.info(
            "stopping: %d messages in the log, %d clients connected", server.log.next_offset, len(server.connections)
        )
    if server.failed.done():
        raise server.failed.result()
    logger.info("stopped; the next message gets offset %(next_offset)d", {"next_offset": server.log.next_offset})
