"""Follows one capture that grows, and the file that takes its name when it is rotated."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import replace

from ingest.capture.compression import STDIN
from ingest.capture.position import ResumeState, ResumeStore
from ingest.errors import SourceError
from ingest.streamer.file import FOLLOW_SECONDS, StreamConfig, stream
from ingest.streamer.report import Report
from telemetry_site.concurrency import pause

logger = logging.getLogger(__name__)


async def follow(config: StreamConfig, stop: asyncio.Event, report: Report) -> Report:
    """Stream until ``stop``. Reads a file that was renamed to its end, then starts the new file under the old name.

    Does not look for a file that was replaced while nobody followed it; logs which of its rows were not sent. Raises as ``stream``.
    """
    path = config.csv_path
    store = ResumeStore(config.state_dir, config.instance_id, path)
    state = None if path == STDIN else await asyncio.to_thread(store.load)
    if path == STDIN or (state is None and not await asyncio.to_thread(os.path.isfile, path)):
        raise SourceError(f"FOLLOW (--follow): {path!r} is not a file: name one file that grows")
    if config.timestamps in {"auto", "shift"}:
        config = replace(config, timestamps="source")
    if state is not None and state.timestamps == config.timestamps:
        await asyncio.to_thread(_report_what_is_left, path, state)
    while not stop.is_set():
        while not await asyncio.to_thread(_has_begun, path):
            if await pause(stop, FOLLOW_SECONDS):
                return report
        await stream(config, stop, report)
        if not stop.is_set():
            logger.info("%s was rotated: going on with the new file", path)
    return report


def _report_what_is_left(path: str, state: ResumeState) -> None:
    """Log which rows are not sent, if the file of the last run has lost its name."""
    try:
        with open(path, "rb") as file:
            if state.fits(path, file, state.timestamps):
                return
    except OSError:
        pass
    logger.warning(
        "%s is not the file that the last run followed: what %s has from line %d on is not sent; stream that file once to send it",
        path,
        _path_of(path, state.file.inode),
        state.line,
    )


def _path_of(path: str, inode: int) -> str:
    """The file with this inode in the folder of ``path``, for the log."""
    try:
        with os.scandir(os.path.dirname(path) or ".") as entries:
            paths = [entry.path for entry in entries if entry.inode() == inode and entry.name != os.path.basename(path)]
    except OSError:
        paths = []
    return paths[0] if paths else "the old file"


def _has_begun(path: str) -> bool:
    """Whether there is a file with a complete first line."""
    try:
        with open(path, "rb") as file:
            return file.readline(1 << 20).endswith(b"\n")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SourceError(f"{path!r}: cannot be read: {error.strerror}") from error
