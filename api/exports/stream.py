"""Streams exports of any length in constant memory. A worker runs only a few at once, and a partial file never looks whole."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from django.http import HttpResponseBase, StreamingHttpResponse
from rest_framework.exceptions import APIException
from rest_framework.request import Request

from api.exports.formats import Encoder
from stores.base import StoreError

logger = logging.getLogger(__name__)

# Each occupies a thread of its worker while it runs. gunicorn.conf.py gives a worker more threads than this.
AT_ONCE = 2
# The server waits with each piece until the client has taken most of the one before.
PIECE_BYTES = 128 * 1024

_slots = threading.BoundedSemaphore(AT_ONCE)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class TooManyExports(APIException):
    """The worker already runs as many exports as it may."""

    status_code = 503
    default_detail = f"{AT_ONCE} exports are running, the most that one worker runs at once: try again later"


class ExportBroken(Exception):
    """An export broke off. The server must cut the connection, so that the client notices."""

    is_logged = True


class _Serving:
    """Until when exports may go on, by the monotonic clock; None while the process serves."""

    def __init__(self) -> None:
        self.ends_at: Callable[[], float | None] = lambda: None


serving = _Serving()


def export(
    request: Request, parts: Iterator[Any], make_encoder: Callable[[], Encoder], *, media_type: str, name: str
) -> HttpResponseBase:
    """The answer with all rows of ``parts``, as a file called ``name``.

    Raises TooManyExports, and whatever the store raises before its first rows.
    """
    headers = {
        "Content-Type": media_type,
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-store",
    }
    if request.method == "HEAD":
        return StreamingHttpResponse(headers=headers)  # a length of 0 would be a lie
    if not _slots.acquire(blocking=False):
        raise TooManyExports
    body = _Body(parts, make_encoder)
    try:
        body.start()
        return StreamingHttpResponse(body, headers=headers)
    except BaseException:
        body.close()
        raise


def file_name(*words: str, extension: str) -> str:
    """A file name that every system accepts: the words that are not empty, and the current time."""
    parts = [text for word in words if (text := _UNSAFE.sub("-", word).strip("-.")[:80])]
    return f"{'_'.join([*parts, time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())])}.{extension}"


class _Body:
    """The pieces of an export. Holds a slot until it is closed, which the server always does."""

    def __init__(self, parts: Iterator[Any], make_encoder: Callable[[], Encoder]) -> None:
        self._parts = parts
        self._make_encoder = make_encoder
        self._pieces: Iterator[bytes] = iter(())
        self._open = True

    def start(self) -> None:
        """Read the first rows, so that a store that does not answer still gives a proper status."""
        first = next(self._parts, None)
        self._pieces = self._run(chain(() if first is None else (first,), self._parts), self._make_encoder())

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        """Release the store and the slot. Idempotent."""
        if self._open:
            self._open = False
            for each in (self._pieces, self._parts):
                if (close := getattr(each, "close", None)) is not None:
                    close()
            _slots.release()

    def _run(self, parts: Iterator[Any], encoder: Encoder) -> Iterator[bytes]:
        is_at_line_end = True
        try:
            for piece in _pieces(parts, encoder):
                ends_at = serving.ends_at()
                if ends_at is not None and time.monotonic() > ends_at:
                    raise ExportBroken("the service is stopping")
                yield piece
                is_at_line_end = piece.endswith(b"\n")
        except ExportBroken as error:
            logger.warning("an export was broken off: %s", error)
            yield _last_line(encoder, str(error), is_at_line_end)
            raise
        except StoreError as error:
            logger.warning("an export was broken off: %s", error)
            yield _last_line(encoder, "the store of readings does not answer", is_at_line_end)
            raise ExportBroken("the store of readings does not answer") from error
        except Exception:
            yield _last_line(encoder, "internal error: the web service's log has the details", is_at_line_end)
            raise


def _pieces(parts: Iterator[Any], encoder: Encoder) -> Iterator[bytes]:
    yield from _cut(encoder.begin())
    for part in parts:
        yield from _cut(encoder.encode(part))
    yield from _cut(encoder.end())


def _last_line(encoder: Encoder, reason: str, is_at_line_end: bool) -> bytes:
    line = encoder.broken(reason)
    return line if is_at_line_end or not line else b"\n" + line


def _cut(data: bytes) -> Iterator[bytes]:
    """Pieces small enough for a slow client to take in time, of whole lines where the file has lines."""
    start = 0
    while start < len(data):
        end = start + PIECE_BYTES
        if end < len(data):
            end = data.rfind(b"\n", start, end) + 1 or end
        yield data[start:end]
        start = end
