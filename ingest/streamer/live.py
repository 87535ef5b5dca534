"""The streamer of a live source: readings go into the spool twice a second, and from there to the broker.

A live source cannot be read again, unlike a file. So only the readings since the last flush are in memory alone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from broker.errors import WRITE_REFUSED, BrokerError, LogFailed
from ingest.dead_letters import DeadLetters
from ingest.errors import StateError
from ingest.samples import RefusedRow, Sample
from ingest.streamer.report import Report, report_often
from ingest.streamer.sender import ENCODERS, BatchSender, StreamerConfig, encode_blocks
from ingest.streamer.spool import Spool
from readings.blocks import BlockBuilder
from readings.model import PointBlock
from readings.times import format_time
from telemetry_site.concurrency import first_of
from telemetry_site.outage import Outage

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A reason for refused readings: they were given up because the spool or the disk was full.
SPOOL_FULL = "spool_full"

# How long readings may stay in memory.
FLUSH_SECONDS = 0.5
# For the last flush, after the time to drain is over.
FINISH_SECONDS = 1.5
# A call to the disk that takes longer is stuck.
STUCK_SECONDS = 60.0
# Readings that may wait in memory while the disk takes nothing; some 100 bytes each.
MOST_IN_MEMORY = 2_000_000


class SourceBatch(NamedTuple):
    """Readings that a source hands over together. ``refused`` goes to the dead letters; ``counts``: by reason of any kind."""

    samples: list[Sample]
    refused: list[RefusedRow]
    counts: Counter[str]
    origin: str = ""


Give = Callable[[SourceBatch], None]


class LiveSource(Protocol):
    """A source of readings that are made as time goes by."""

    name: str

    async def run(self, give: Give, stop: asyncio.Event, *, once: bool) -> None:
        """Call ``give`` until ``stop`` is set; with ``once`` one time for each origin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveConfig(StreamerConfig):
    """The settings of a live source's streamer. Seconds and bytes."""

    interval: float = 5.0
    spool_bytes: int = 1 << 30
    once: bool = False


class LiveStreamer:
    """One run over one live source. Raises StateError when its spool cannot be opened; ``run`` closes it."""

    def __init__(self, config: LiveConfig, source: LiveSource, stop: asyncio.Event) -> None:
        self._config = config
        self._source = source
        self._stop = stop
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._dead_letters = DeadLetters(config.state_dir, f"streamer-{config.instance_id}")
        self._disk = Outage("the spool's disk")
        self._report = Report(refresh=self._refresh)
        self._gathered: list[Sample] = []
        self._counts: Counter[str] = Counter()
        self._since = 0.0
        self._flush_lock = asyncio.Lock()
        self._flushing: asyncio.Task[None] | None = None
        # Waits for the disk for a moment, which is harmless at the start.
        self._spool = Spool(config.state_dir / "spool" / config.instance_id, config.spool_bytes)
        run = f"{secrets.token_hex(8)}-{time.time_ns():x}"
        self._batch_ids = (f"{run}-{number}" for number in itertools.count(1))
        self._sender = BatchSender(
            self._spool,
            lambda number: self._in_spool(self._spool.read, number),
            lambda: config.broker.connect(config.instance_id),
            broker=config.broker.partner,
            encode=ENCODERS[config.batch_format],
        )

    @property
    def report(self) -> Report:
        """The current report."""
        return self._report.now()

    def _refresh(self) -> None:
        report = self._report
        sender = self._sender
        report.sent, report.batches = sender.readings_answered, sender.batches_answered
        report.waiting = self._spool.waiting
        oldest = self._spool.oldest_since or (self._since if self._gathered else None)
        report.behind_s = 0.0 if oldest is None else max(0.0, time.time() - oldest)
        report.spool_bytes = self._spool.size_bytes
        report.connected = sender.connected
        report.trouble = [*sender.trouble, *self._disk.trouble]

    async def run(self) -> Report:
        """Stream until ``stop``, or once. Then send the rest, for DRAIN_SECONDS at most; the spool keeps the rest.

        Raises SourceError, StateError or BrokerRefusal.
        """
        config = self._config
        try:
            logger.info(
                "streaming %(source)s to %(broker)s as %(instance_id)s",
                {"source": self._source.name, "broker": config.broker, "instance_id": config.instance_id},
            )
            await first_of(
                self._work(),
                self._sender.run(),
                self._flush_often(),
                report_often(self._report),
                self._sender.drain_deadline(self._stop),
            )
            await self._finish_flushing()
            report = self.report
            logger.info("%s: %s", "stopped" if self._stop.is_set() else "done", report.line())
            if report.waiting:
                logger.warning("the spool keeps %d batches: they are sent at the next start", report.waiting)
            return report
        finally:
            await self._in_spool(self._spool.close)
            self._worker.shutdown()

    def give(self, batch: SourceBatch) -> None:
        """Take readings from the source."""
        if not self._gathered:
            self._since = time.time()
        self._gathered += batch.samples
        self._counts.update(batch.counts)
        self._report.read += len(batch.samples)
        self._report.counts.update(batch.counts)
        if batch.refused:
            head = {"time": format_time(time.time_ns()), "source": batch.origin or self._source.name}
            self._dead_letters.write({**head, **row._asdict()} for row in batch.refused)
        excess = len(self._gathered) - MOST_IN_MEMORY
        if excess > 0:
            del self._gathered[:excess]
            self._count_given_up(excess)

    async def _work(self) -> None:
        await self._source.run(self.give, self._stop, once=self._config.once)
        await self._flush()
        await self._sender.flush()

    async def _flush_often(self) -> None:
        """Flush, and let the spool do its housekeeping, until cancelled."""
        config = self._config
        seconds = min(config.collect_interval, config.interval, FLUSH_SECONDS)
        while True:
            await asyncio.sleep(seconds)
            await self._flush()
            await self._in_spool(self._tick)

    async def _flush(self) -> None:
        """Write the gathered readings to the spool. Goes on when its caller is cancelled: ``_finish_flushing`` waits for it."""
        async with self._flush_lock:
            if self._flushing is not None:
                await asyncio.shield(self._flushing)
            self._flushing = asyncio.create_task(self._flush_now())
            await asyncio.shield(self._flushing)
            self._flushing = None

    async def _finish_flushing(self) -> None:
        try:
            async with asyncio.timeout(FINISH_SECONDS):
                await self._flush()
        except TimeoutError:
            logger.error("the last readings are lost: the disk takes no writes")
            if self._flushing is not None:
                self._flushing.cancel()

    async def _flush_now(self) -> None:
        samples, self._gathered = self._gathered, []
        counts, self._counts = self._counts, Counter()
        if not samples and not counts:
            return
        batches = await asyncio.to_thread(self._encode, samples, counts)
        if self._spool.excess(batches) > 0:
            await self._in_spool(self._tick)  # answered batches leave the disk before any other is given up
        given_up = self._spool.give_up(batches)
        if given_up[0]:
            self._note_given_up(*given_up, "SPOOL_BYTES is reached")
            await self._in_spool(self._tick)
        while True:
            try:
                await self._in_spool(self._spool.append, batches)
                break
            except WRITE_REFUSED as error:
                self._disk.begin(error)
                given_up = self._spool.give_up(at_least=1 + self._spool.waiting // 4)
                if given_up[0]:
                    self._note_given_up(*given_up, "the disk is full")
                    await self._in_spool(self._tick)
                await asyncio.sleep(FLUSH_SECONDS)
            except LogFailed as error:
                raise StateError(f"STATE_DIR (--state-dir): the spool cannot be written: {error}") from error
        self._disk.end()
        self._sender.wake()

    def _encode(self, samples: list[Sample], counts: Counter[str]) -> list[tuple[bytes, int]]:
        batch_size = self._config.batch_size
        builder = BlockBuilder()
        blocks: list[PointBlock] = []
        times: dict[str, int] = {}
        for sample in samples:
            # Of several samples of the fleet the first goes first, not all those of the first GPU.
            if times.setdefault(sample.gpu.uuid, sample.time_ns) != sample.time_ns and len(builder) >= batch_size:
                blocks += builder.blocks(batch_size)
                times = {sample.gpu.uuid: sample.time_ns}
            builder.add(*sample)
        blocks += builder.blocks(batch_size)
        return list(
            encode_blocks(
                blocks,
                self._batch_ids,
                source=self._config.instance_id,
                refused=counts,
                encode=ENCODERS[self._config.batch_format],
                live=True,
            )
        )

    def _tick(self) -> None:
        try:
            self._spool.tick()
        except LogFailed as error:
            raise StateError(f"STATE_DIR (--state-dir): the spool cannot be written: {error}") from error
        except (BrokerError, OSError) as error:
            logger.debug("the spool's housekeeping: %s", error)

    def _note_given_up(self, batches: int, readings: int, why: str) -> None:
        logger.warning("%s: gave up the oldest %d batches (%d readings)", why, batches, readings)
        self._count_given_up(readings)

    def _count_given_up(self, readings: int) -> None:
        self._counts[SPOOL_FULL] += readings
        self._report.counts[SPOOL_FULL] += readings

    async def _in_spool(self, call: Callable[..., T], *arguments: Any) -> T:
        with self._report.watch.doing("a call to the spool's disk", STUCK_SECONDS):
            return await asyncio.get_running_loop().run_in_executor(self._worker, call, *arguments)
