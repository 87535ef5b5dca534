"""The streamer of captures: a collect loop reads the source into a bounded buffer, a publish loop cuts batches and sends them.

It makes two promises. A run is ``done`` only when the source is at its end and the broker has answered every batch. The position
saved for a restart is never past a row whose batch is unanswered.
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
from datetime import UTC, tzinfo
from typing import TypeVar

from ingest.capture.compression import STDIN
from ingest.capture.position import Positions, ResumeStore, SourcePosition
from ingest.capture.source import CaptureChunk, CsvSource
from ingest.dead_letters import DeadLetters
from ingest.errors import StateError
from ingest.parts import Parts
from ingest.shard import WHOLE, Shard
from ingest.streamer.pacing import Pacer, SpeedPacer
from ingest.streamer.report import Backlog, Report, progress_bar, report_often
from ingest.streamer.sender import ENCODERS, BatchSender, MemoryQueue, StreamerConfig, encode_blocks
from ingest.streamer.timestamps import Choice, Stamper, choose
from readings.blocks import blocks as blocks_of
from readings.checks import Kinds
from readings.columns import Columns
from readings.times import SECOND, format_time, spell_duration
from telemetry_site.concurrency import all_of, first_of, pause

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# Readings gathered before they are ordered and cut. Captures are sorted by metric, so the more readings are gathered, the more
# of a GPU's metrics share a point.
GATHER_READINGS = 50_000
CHUNKS_AHEAD = 2
# The most batches in flight, and in the queue.
WINDOW, MOST_QUEUED = 64, 128
CLOCK_SLACK_NS = 300 * SECOND
FOLLOW_SECONDS = 0.25
# If one block of a capture takes this long to read, the disk hangs.
STUCK_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig(StreamerConfig):
    """The settings of a streamer of captures. Durations in seconds; ``rate`` in readings per second, 0 for no limit."""

    csv_path: str
    rate: float = 0.0
    loop: bool = False
    timestamps: str = "auto"
    retention: float = 0.0
    zone: tzinfo = UTC
    columns: tuple[str, ...] = ()
    hostname: str = ""
    shard: Shard = WHOLE
    follow: bool = False
    speed: float = 0.0
    parts: Parts | None = None
    last_ns: int | None = None  # the newest time of all captures, if this is one of several


@dataclass(frozen=True, slots=True)
class StreamTotals:
    """The results of a run. ``counts``: rows by reason of any kind. ``done``: the source is at its end and everything was answered."""

    readings: int
    batches: int
    counts: Counter[str]
    unanswered: int
    done: bool


def open_source(config: StreamConfig, path: str, *, follow: bool = False) -> CsvSource:
    """Opens one capture as the settings say. Raises SourceError."""
    return CsvSource(
        path,
        needs_timestamp=config.timestamps != "now",
        zone=config.zone,
        columns=config.columns,
        hostname=config.hostname,
        shard=config.shard,
        follow=follow,
        parts=config.parts,
    )


async def stream(config: StreamConfig, stop: asyncio.Event, report: Report | None = None) -> StreamTotals:
    """Stream a capture until its end, or until ``stop``; then the rows already read are sent, for a few seconds at most.

    Adds its work to ``report``. Raises SourceError, StateError or BrokerRefusal.
    """
    store = ResumeStore(config.state_dir, config.instance_id, config.csv_path)
    await asyncio.to_thread(store.prepare)
    source = await asyncio.to_thread(open_source, config, config.csv_path, follow=config.follow)
    try:
        with progress_bar(source.size, source.name) as progress:
            return await FileStreamer(config, source, store, stop, progress, report or Report()).run()
    finally:
        source.close()


class FileStreamer:
    """One run over one open capture."""

    def __init__(
        self,
        config: StreamConfig,
        source: CsvSource,
        store: ResumeStore,
        stop: asyncio.Event,
        progress: Callable[[int], None],
        report: Report,
    ) -> None:
        self._config = config
        self._source = source
        self._store = store
        self._stop = stop
        self._progress = progress
        self._report = report
        self._sent_before, self._batches_before = report.sent, report.batches
        self._began = time.monotonic()
        self._start_position = 0
        self._positions = Positions(store, lambda reached: source.state_at(reached, config.timestamps))
        self._queue = MemoryQueue(MOST_QUEUED, self._positions.answered)
        self._encode = ENCODERS[config.batch_format]
        self._run = secrets.token_hex(8)
        self._sender = BatchSender(
            self._queue,
            self._queue.read,
            lambda: config.broker.connect(config.instance_id),
            broker=config.broker.partner,
            window=WINDOW,
            encode=self._encode,
        )
        self._buffer: asyncio.Queue[CaptureChunk | None] = asyncio.Queue(CHUNKS_AHEAD)
        self._dead_letters = DeadLetters(config.state_dir, f"streamer-{config.instance_id}")
        self._stamper = Stamper(Choice("source"))
        self._explained = False
        self._said_live = False
        self._looked_at_age = False
        self._at_end = False
        self._counts: Counter[str] = Counter()
        # One thread reads, and may wait for a pipe; one cuts batches. With two that take turns at both, each comes to hold the
        # memory of both (a tenth more in all), and what it reads next is in the other one's caches (3 % more CPU).
        self._reader, self._cutter = ThreadPoolExecutor(1, "capture-reader"), ThreadPoolExecutor(1, "capture-cutter")

    async def run(self) -> StreamTotals:
        """Stream, and save or clear the position at the end."""
        config = self._config
        logger.info(
            "streaming %(source)s to %(broker)s as %(instance_id)s",
            {"source": config.csv_path, "broker": config.broker, "instance_id": config.instance_id},
        )
        for note in self._source.notes:
            logger.info("%s", note)
        await self._begin()
        self._began, self._start_position = time.monotonic(), self._source.position
        self._report.refresh = self._refresh
        if config.follow:
            # The file may be replaced before anything in it was sent: a later run must know which file it was.
            self._positions.add(
                0, SourcePosition(self._source.position, self._source.line, self._stamper.choice.shift_ns)
            )
        # The work comes first: if it ends in the same moment as the deadline, it counts as finished.
        try:
            ended = await first_of(
                self._work(),
                self._sender.run(),
                self._positions.keep(),
                report_often(self._report),
                self._sender.drain_deadline(self._stop),
            )
        finally:
            self._reader.shutdown(wait=False)
            self._cutter.shutdown(wait=False)
        drained = ended == 0
        done = drained and self._at_end
        try:
            await asyncio.to_thread(self._positions.finish, done=done)
        except StateError as error:
            logger.error("%s", error)
        self._refresh()
        self._report.refresh = lambda: None  # the file is closed now
        return self._summarise(done=done, drained=drained)

    def _refresh(self) -> None:
        report, sender, oldest = self._report, self._sender, self._queue.oldest_since
        report.sent = self._sent_before + sender.readings_answered
        report.batches = self._batches_before + sender.batches_answered
        report.waiting = self._sender.waiting
        report.behind_s = 0.0 if oldest is None else max(0.0, time.time() - oldest)
        report.backlog = self._backlog()
        report.connected = sender.connected
        report.trouble = sender.trouble

    def _backlog(self) -> Backlog | None:
        reached = self._positions.reached
        position, line = (self._start_position, 0) if reached is None else (reached.position, reached.line)
        left = self._source.bytes_after(position)
        if left is None:
            return None
        left += self._report.later_bytes
        done = position - self._start_position
        seconds = left * (time.monotonic() - self._began) / done if done > 0 and left else None
        return Backlog(left, left * line // position if position else 0, seconds)

    def _summarise(self, *, done: bool, drained: bool) -> StreamTotals:
        totals = StreamTotals(
            self._sender.readings_answered,
            self._sender.batches_answered,
            self._counts,
            self._sender.waiting,
            done,
        )
        logger.info(
            "%(state)s: %(readings)d readings in %(batches)d batches sent and answered",
            {"state": "done" if done else "stopped", "readings": totals.readings, "batches": totals.batches},
        )
        kinds = Kinds.of(totals.counts)
        if kinds.refused:
            logger.warning("%s; see %s", "; ".join(kinds.spelled()), self._dead_letters.path)
        elif totals.counts:
            logger.info("%s", "; ".join(kinds.spelled()))
        if not drained:
            logger.warning("%d batches are not answered: they are sent again at the next start", totals.unanswered)
        if not done and self._report.backlog is not None:
            logger.info("%s: the next start goes on there", self._report.backlog)
        return totals

    async def _begin(self) -> None:
        """Find the row to start at, and the times to use."""
        state = await asyncio.to_thread(self._store.load)
        wish = self._config.timestamps
        if state is None:
            await self._choose_times()
        elif await asyncio.to_thread(self._source.resume, state, wish):
            self._report.resumed = True
            self._stamper.choice = Choice("now" if wish == "now" else "shift", state.shift_ns)
            logger.info("resuming at line %d: all before it was answered", state.line)
        else:
            logger.info("the capture or TIMESTAMPS is not that of the last run: starting from the beginning")
            await self._choose_times()

    async def _choose_times(self) -> None:
        wish = self._config.timestamps
        last_ns = self._config.last_ns
        if wish in {"auto", "shift"} and last_ns is None and self._config.csv_path != STDIN:
            latest_ns = time.time_ns() + CLOCK_SLACK_NS
            last_ns = await asyncio.to_thread(self._source.last_time, latest_ns, self._stop.is_set)
        choice = choose(
            "source" if wish != "now" and self._config.csv_path == STDIN else wish,
            last_ns,
            retention=self._config.retention,
            now_ns=time.time_ns(),
        )
        self._stamper.choice = choice
        if choice.explanation:
            # Each pass of a loop has its own shift; one explanation is enough.
            logger.log(logging.DEBUG if self._explained else logging.INFO, "%s", choice.explanation)
            self._explained = True

    async def _work(self) -> None:
        await all_of(self._collect(), self._publish())
        await self._sender.flush()

    # Collect loop: source -> buffer, at the configured pace, until the end or the stop signal.

    async def _collect(self) -> None:
        config = self._config
        pacer: Pacer | SpeedPacer = SpeedPacer(config.speed) if config.speed else Pacer(config.rate)
        while True:
            began = time.monotonic()
            at_end = await self._collect_once(pacer)
            if not at_end:
                break
            if not self._config.loop:
                self._at_end = True
                break
            # A pass takes at least one interval, so that a small capture in a loop does not flood the log.
            rest = self._config.collect_interval - (time.monotonic() - began)
            if await pause(self._stop, max(rest, 0.0)):
                break
            await _in(self._reader, self._source.rewind)
            await self._choose_times()
        await self._buffer.put(None)

    async def _collect_once(self, pacer: Pacer | SpeedPacer) -> bool:
        """One pass over the source; returns whether it reached the end."""
        paced = self._config.rate > 0 or self._config.speed > 0
        while not self._stop.is_set():
            with self._report.watch.doing(f"a read of {self._source.path}", STUCK_SECONDS):
                chunk = await _in(self._reader, self._read, pacer.chunk if paced else None)
            self._progress(chunk.position)
            self._report.read += chunk.columns.size
            await self._buffer.put(chunk)
            if chunk.done:
                if not self._config.follow or await asyncio.to_thread(self._source.has_ended):
                    return True
                await pause(self._stop, FOLLOW_SECONDS)
                continue
            if (seconds := pacer.took(chunk.columns)) > 0:
                await pause(self._stop, seconds)
        return False

    def _read(self, max_rows: int | None) -> CaptureChunk:
        chunk = self._source.read(max_rows)
        if chunk.refused:
            self._report.note_rows(chunk.refused)
            self._keep_refused(chunk)
        columns = self._stamper.stamp(chunk.columns)
        if not self._looked_at_age and columns.size:
            self._looked_at_age = True
            self._warn_of_age(int(columns.time_ns.max()))
        return chunk._replace(columns=columns, shift_ns=self._stamper.choice.shift_ns)

    def _warn_of_age(self, newest_ns: int) -> None:
        retention = self._config.retention
        if self._config.timestamps == "source" and 0 < retention < (time.time_ns() - newest_ns) / SECOND:
            logger.warning(
                "TIMESTAMPS=source: readings of %s are older than RETENTION_PERIOD (%s): collectors with that setting "
                "refuse them; give them RETENTION_PERIOD=0, or stream with TIMESTAMPS=shift",
                format_time(newest_ns),
                spell_duration(retention),
            )

    def _keep_refused(self, chunk: CaptureChunk) -> None:
        now = format_time(time.time_ns())
        head = {"time": now, **self._source.origin}
        self._dead_letters.write({**head, **row._asdict()} for row in chunk.refused)
        for row in chunk.refused:
            logger.debug("line %d refused: %s: %s", row.line, row.reason, row.detail)

    # Publish loop: buffer -> batches.

    async def _publish(self) -> None:
        while await self._publish_gathering():
            pass

    async def _publish_gathering(self) -> bool:
        """Gather for COLLECT_INTERVAL, or until there is enough, and publish that; returns whether there may be more."""
        parts: list[Columns] = []
        gathered = 0
        counts: Counter[str] = Counter()
        last: CaptureChunk | None = None
        more = True
        ends = 0.0
        while last is None or (gathered < GATHER_READINGS and (self._config.follow or not last.done)):
            try:
                chunk = await asyncio.wait_for(self._buffer.get(), None if last is None else ends - time.monotonic())
            except TimeoutError:
                break
            if chunk is None:
                more = False
                break
            if last is None:
                ends = time.monotonic() + self._config.collect_interval
            last = chunk
            counts.update(chunk.counts)
            parts.append(chunk.columns)
            gathered += chunk.columns.size
        if last is not None:
            self._counts.update(counts)
            self._report.counts.update(counts)
            await self._put_all(parts, SourcePosition(last.position, last.line, last.shift_ns), counts)
        return more

    async def _put_all(self, parts: list[Columns], position: SourcePosition, counts: Counter[str]) -> None:
        for payload, readings in await _in(self._cutter, self._cut, parts, counts):
            await self._queue.put(payload, readings)
            self._sender.wake()
        self._positions.add(self._queue.end - 1, position)

    def _cut(self, parts: list[Columns], counts: Counter[str]) -> list[tuple[bytes, int]]:
        """These readings as batches. Each block is let go once it is encoded, so that its memory is that of the next one."""
        return list(
            encode_blocks(
                blocks_of(parts, self._config.batch_size),
                (f"{self._run}-{number}" for number in itertools.count(self._queue.end)),
                source=self._config.instance_id,
                refused=counts,
                encode=self._encode,
                live=self._is_live(parts),
            )
        )

    def _is_live(self, parts: list[Columns]) -> bool:
        """Whether these readings are sent as they are made: what is piped or appended and has times of now.

        Everything else is a capture, also with TIMESTAMPS=now: a replay ends, and its fleet is not lost then.
        """
        config = self._config
        newest_ns = max((int(part.time_ns.max()) for part in parts if part.size), default=0)
        live = (config.follow or config.csv_path == STDIN) and abs(time.time_ns() - newest_ns) < CLOCK_SLACK_NS
        if live and not self._said_live:
            self._said_live = True
            logger.info("the readings are live: they come as they are made, with times of now (TIMESTAMPS)")
        return live


async def _in(thread: ThreadPoolExecutor, call: Callable[..., Result], *args: object) -> Result:
    return await asyncio.get_running_loop().run_in_executor(thread, call, *args)
