"""Streams all captures that CSV_PATH names, one after the other."""

from __future__ import annotations

import asyncio
import glob
import hashlib
import logging
import os
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec

from ingest.atomic import replacing
from ingest.capture.compression import STDIN
from ingest.capture.following import follow
from ingest.capture.source import CsvSource
from ingest.errors import SourceError, StateError
from ingest.streamer.file import CLOCK_SLACK_NS, StreamConfig, open_source, stream
from ingest.streamer.report import Report
from readings.blocks import blocks
from readings.checks import check_block
from telemetry_site.concurrency import pause

logger = logging.getLogger(__name__)


class DoneFiles:
    """The finished files of a run over several, kept on disk until the whole run is finished."""

    def __init__(self, config: StreamConfig) -> None:
        digest = hashlib.sha256(os.fsencode(os.path.abspath(config.csv_path))).hexdigest()[:16]
        self._path = Path(config.state_dir) / "resume" / f"{config.instance_id}-{digest}.done.json"
        self._done = self._load()

    def has(self, path: str) -> bool:
        """Whether this file is finished and unchanged since."""
        return self._done.get(path) == _stamp(path)

    def add(self, path: str) -> None:
        """Note that this file is finished. Raises StateError."""
        self._done[path] = _stamp(path)
        try:
            with replacing(self._path) as file:
                file.write(msgspec.json.encode(self._done))
        except OSError as error:
            raise StateError(f"STATE_DIR (--state-dir): cannot keep {self._path}: {error.strerror}") from error

    def clear(self) -> None:
        """Forget all files: the whole run is finished."""
        self._path.unlink(missing_ok=True)

    def _load(self) -> dict[str, list[int]]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, list[int]])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return {}


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _stamp(path: str) -> list[int]:
    status = os.stat(path)
    return [status.st_ino, status.st_size]


def find_captures(pattern: str) -> list[str]:
    """The files that CSV_PATH names, sorted by name: one file, all captures in a folder, or those that match a pattern.

    Raises SourceError if there are none.
    """
    if pattern == STDIN or not pattern:
        return [pattern]
    if os.path.isdir(pattern):
        paths = sorted(
            entry.path
            for entry in os.scandir(pattern)
            if entry.is_file() and entry.name.endswith((".csv", ".csv.gz", ".csv.zst"))
        )
        if not paths:
            raise SourceError(f"{pattern!r}: holds no .csv, .csv.gz or .csv.zst file")
        return paths
    if not os.path.lexists(pattern) and any(sign in pattern for sign in "*?["):
        paths = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
        if not paths:
            raise SourceError(f"{pattern!r}: no file is named so")
        return paths
    return [pattern]


async def stream_captures(config: StreamConfig, stop: asyncio.Event, report: Report | None = None) -> Report:
    """Stream all captures until the end, or until ``stop``; a later run goes on where this one stopped. Raises as ``stream``.

    Keeps ``report`` up to date, and returns it.
    """
    report = Report() if report is None else report
    if config.follow:
        return await follow(config, stop, report)
    paths = await asyncio.to_thread(find_captures, config.csv_path)
    if paths == [config.csv_path]:
        await stream(config, stop, report)
        return report
    if config.timestamps in {"auto", "shift"}:
        # One shift for all, so that they keep their distances.
        newest = [await asyncio.to_thread(_last_time_of, config, path, stop) for path in paths]
        config = replace(config, last_ns=max((each for each in newest if each is not None), default=None))
    done = DoneFiles(config)
    logger.info("%d captures in %s", len(paths), config.csv_path)
    while True:
        began = time.monotonic()
        for number, path in enumerate(paths):
            if done.has(path):
                continue
            report.later_bytes = sum(_size(later) for later in paths[number + 1 :] if not done.has(later))
            totals = await stream(replace(config, csv_path=path, loop=False), stop, report)
            if not totals.done:
                return report
            done.add(path)
        done.clear()
        if not config.loop or stop.is_set():
            return report
        # As with one capture, a pass takes an interval at least.
        if await pause(stop, max(began + config.collect_interval - time.monotonic(), 0.0)):
            return report
        done = DoneFiles(config)


def _last_time_of(config: StreamConfig, path: str, stop: asyncio.Event) -> int | None:
    with closing(
        CsvSource(path, needs_timestamp=True, zone=config.zone, columns=config.columns, hostname=config.hostname)
    ) as source:
        return source.last_time(time.time_ns() + CLOCK_SLACK_NS, stop.is_set)


def try_captures(config: StreamConfig) -> Report:
    """Read and check all captures once, and send nothing. Raises SourceError."""
    report = Report()
    now_ns = time.time_ns()
    for path in find_captures(config.csv_path):
        with closing(open_source(config, path)) as source:
            for note in source.notes:
                logger.info("%s", note)
            done = False
            while not done:
                chunk = source.read()
                done = chunk.done
                report.counts.update(chunk.counts)
                report.read += chunk.columns.size
                report.note_rows(chunk.refused, f"{path!r} ")
                for block in blocks([chunk.columns], config.batch_size):
                    _, refusals = check_block(block, now_ns=now_ns, oldest_ns=None)
                    report.counts.update(refusals.counts)
                    report.read -= sum(refusals.counts.values())
                    for refusal in refusals:
                        report.note(refusal.reason, refusal.detail)
    return report
