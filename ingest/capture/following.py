"""One capture that grows for ever, and what comes in its place when it is rotated: also while nobody followed it."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from dataclasses import replace

from ingest.capture.compression import STDIN, open_capture
from ingest.capture.position import ResumeState, ResumeStore
from ingest.capture.rotated import Sibling, find_rotated, is_whole, next_rotated, sibling_of
from ingest.concurrency import pause
from ingest.errors import SourceError
from ingest.streamer.file import FOLLOW_SECONDS, StreamConfig, stream
from ingest.streamer.report import Report

logger = logging.getLogger(__name__)

GROWING_SECONDS = 2.0  # a compressed file that is not whole and has not grown for so long will not become whole


async def follow(config: StreamConfig, stop: asyncio.Event, report: Report) -> Report:
    """Stream until ``stop``. A run ends when the file was rotated and is read to its end; the next one reads what is there now.

    What was rotated away unread comes first. Raises as ``stream``.
    """
    path = config.csv_path
    store = ResumeStore(config.state_dir, config.instance_id, path)
    state = None if path == STDIN else await asyncio.to_thread(store.load)
    if path == STDIN or (state is None and not await asyncio.to_thread(os.path.isfile, path)):
        raise SourceError(f"FOLLOW (--follow): {path!r} is not a file: name one file that grows")
    if config.timestamps in {"auto", "shift"}:
        config = replace(config, timestamps="source")
    if state is not None and state.timestamps == config.timestamps:
        await _finish_what_is_left(config, stop, report, store, state)
    while not stop.is_set():
        while not await asyncio.to_thread(_has_begun, path):
            if await pause(stop, FOLLOW_SECONDS):
                return report
        totals = await stream(config, stop, report)
        if not stop.is_set():
            logger.info("%s was rotated: going on with the new file", path)
            last = await asyncio.to_thread(sibling_of, path, totals.inode)
            await _catch_up(config, stop, report, last)
    return report


async def _finish_what_is_left(
    config: StreamConfig, stop: asyncio.Event, report: Report, store: ResumeStore, state: ResumeState
) -> None:
    """The rest of the file that the last run was in, where another one has its name now."""
    path = config.csv_path
    if await asyncio.to_thread(_is_still_there, path, state):
        return
    found = await asyncio.to_thread(find_rotated, path, state, store.saved_ns())
    if found is None:
        logger.warning(
            "%s is another file than the last run was in, and that one is not found beside it: "
            "what it has from line %d on is not sent",
            path,
            state.line,
        )
        return
    logger.info(
        "%s was rotated while nobody followed it: finishing %s first, from line %d", path, found.path, state.line
    )
    if await _until_whole(found.path, stop):
        await asyncio.to_thread(_move_position, store, state, found.path)
        await _catch_up(config, stop, report, await _stream_rotated(config, found, stop, report))


async def _catch_up(config: StreamConfig, stop: asyncio.Event, report: Report, last: Sibling | None) -> None:
    """All files that had the name after ``last`` and have lost it again."""
    while last is not None and not stop.is_set():
        last = await asyncio.to_thread(next_rotated, config.csv_path, last)
        if last is not None and await _until_whole(last.path, stop):
            logger.info("%s was rotated more than once: reading %s before the new file", config.csv_path, last.path)
            last = await _stream_rotated(config, last, stop, report)


async def _stream_rotated(config: StreamConfig, found: Sibling, stop: asyncio.Event, report: Report) -> Sibling | None:
    """One file that has lost its name. The position is kept in that name all the same. The file as it is now, None: not all is sent."""
    try:
        part = replace(config, csv_path=found.path, position_of=config.csv_path, follow=False)
        if not (await stream(part, stop, report)).done:
            return None
    except SourceError as error:
        logger.warning("passing over what was rotated: %s", error)
    return await asyncio.to_thread(sibling_of, config.csv_path, found.inode) or found


async def _until_whole(path: str, stop: asyncio.Event) -> bool:
    """Wait while a file is being compressed; False when there is no time left."""
    size = -1
    while not await asyncio.to_thread(is_whole, path):
        before, size = size, await asyncio.to_thread(_size, path)
        if size == before:
            break
        if await pause(stop, GROWING_SECONDS):
            return False
    return True


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _move_position(store: ResumeStore, state: ResumeState, path: str) -> None:
    position, line, shift_ns = state.position, state.line, state.shift_ns
    with suppress(OSError), open_capture(path) as file:  # gone again: whoever reads it next will say so
        store.save(
            ResumeState.at(path, file, position=position, line=line, timestamps=state.timestamps, shift_ns=shift_ns)
        )


def _is_still_there(path: str, state: ResumeState) -> bool:
    try:
        with open(path, "rb") as file:
            return state.fits(path, file, state.timestamps)
    except OSError:
        return False


def _has_begun(path: str) -> bool:
    """Whether there is a file with a first line."""
    try:
        with open(path, "rb") as file:
            return file.readline(1 << 20).endswith(b"\n")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SourceError(f"{path!r}: cannot be read: {error.strerror}") from error
