"""manage.py stream: publish the readings of captures, live exporters or a synthetic fleet."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from ingest.config import live_config, live_source, stream_config
from ingest.errors import IngestError, SourceError
from ingest.streamer.report import Report
from telemetry_site.flags import ServiceCommand
from telemetry_site.service import CannotListen, collect_garbage_rarely, stop_signals

# Captures need numpy and pyarrow, live sources aiohttp: a streamer imports only what its source needs.
if TYPE_CHECKING:
    from ingest.exporter.scraper import TargetStatus
    from ingest.streamer.live import SourceBatch


class Command(ServiceCommand):
    """Streams SOURCE. A capture ends when every batch is answered; a run that was stopped goes on at the next start."""

    command_name = "stream"
    help = "Stream readings to the broker: captures (CSV_PATH), live exporters (TARGETS) or a synthetic fleet."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the settings' flags, --once, --dry-run and --truth."""
        super().add_arguments(parser)
        parser.add_argument("--once", action="store_true", help="of a live source: one sample of each, then end")
        parser.add_argument(
            "--dry-run", action="store_true", help="read and check once, say what was found, send nothing"
        )
        parser.add_argument(
            "--truth",
            type=Path,
            metavar="FILE",
            help="of a synthetic fleet: append each fault to this file as it begins, with the events that should come of it (JSON lines)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until the end of the source or a stop signal."""
        truth: Path | None = options["truth"]
        if truth is not None and (settings.SOURCE != "simulate" or options["dry_run"]):
            raise CommandError(
                "--truth is for a synthetic fleet that is streamed: use --source simulate, without --dry-run"
            )
        collect_garbage_rarely()
        try:
            if options["dry_run"]:
                report, text = asyncio.run(_try())
                self.stdout.write(text)
                if not report.read:
                    raise CommandError("no reading was found: nothing would be sent")
            elif settings.SOURCE == "csv":
                asyncio.run(_stream())
            else:
                asyncio.run(_stream_live(once=options["once"], truth=truth))
        except (IngestError, CannotListen) as error:
            raise CommandError(str(error)) from error


async def _stream() -> None:
    from ingest.capture.files import stream_captures

    stop = asyncio.Event()
    report = Report()
    with stop_signals(stop):
        async with _monitoring(report, {}):
            await stream_captures(stream_config(), stop, report)
    if report.counts and not (report.sent or report.resumed or stop.is_set() or settings.LOOP or settings.FOLLOW):
        raise SourceError(
            "\n".join(["rows were read, and none gave a reading", *report.kinds.spelled(), *report.shown_examples()])
        )


async def _stream_live(*, once: bool, truth: Path | None) -> None:
    from ingest.streamer.live import LiveStreamer

    stop = asyncio.Event()
    source = live_source(truth=truth)
    streamer = LiveStreamer(live_config(once=once), source, stop)
    with stop_signals(stop):
        async with _monitoring(streamer.report, exporters(source)):
            await streamer.run()


@asynccontextmanager
async def _monitoring(report: Report, statuses: Mapping[str, TargetStatus]) -> AsyncIterator[None]:
    """Serve the streamer's state inside the block, if METRICS_ADDR is set."""
    if settings.METRICS_ADDR is None:
        yield
        return
    from ingest.streamer.metrics import MonitoredStreamer
    from telemetry_site.monitor import monitoring

    async with monitoring(settings.METRICS_ADDR, MonitoredStreamer(report, statuses)):
        yield


async def _try() -> tuple[Report, str]:
    """Read the captures, or one sample of a live source; returns what was found, and the summary."""
    report = Report()
    if settings.SOURCE == "csv":
        from ingest.capture.files import try_captures

        report = await asyncio.to_thread(try_captures, stream_config(keeps=False))
        return report, summary(report, None)

    from readings.blocks import BlockBuilder
    from readings.checks import check_block

    def count(portion: SourceBatch) -> None:
        report.read += len(portion.samples)
        report.counts.update(portion.counts)
        report.note_rows(portion.refused)
        # Readings that a collector would refuse count as well.
        builder = BlockBuilder()
        for sample in portion.samples:
            builder.add(*sample)
        for block in builder.blocks(settings.BATCH_SIZE):
            _, refusals = check_block(block, now_ns=time.time_ns(), oldest_ns=None)
            report.counts.update(refusals.counts)
            report.read -= sum(refusals.counts.values())
            for refusal in refusals:
                report.note(refusal.reason, refusal.detail)

    source = live_source(keeps=False)
    await source.run(count, asyncio.Event(), once=True)
    return report, summary(report, source)


def exporters(source: object) -> Mapping[str, TargetStatus]:
    """The state of each exporter; empty for a source without exporters."""
    statuses: Mapping[str, TargetStatus] = getattr(source, "statuses", {})
    return statuses


def summary(report: Report, source: object) -> str:
    """The result of a dry run."""
    lines = [f"{report.read} readings"]
    lines += [*report.kinds.spelled(), *report.shown_examples()]
    if statuses := exporters(source):
        down = Counter(status.reason for status in statuses.values() if not status.up)
        lines.append(f"{len(statuses) - down.total()} of {len(statuses)} exporters are up")
        lines += [f"{count} down: {reason}" for reason, count in down.most_common(20)]
        if empty := [url for url, status in statuses.items() if status.up and not status.gpus]:
            lines.append(f"{len(empty)} of them without one GPU, such as {empty[0]}")
    return "\n".join([*lines, "nothing was sent"])
