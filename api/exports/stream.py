"""Answers of any length, sent while they are read: at most a few at once, in flat memory, and never half of one that looks whole."""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from rest_framework.exceptions import APIException
from rest_framework.request import Request

from api.exports.formats import Encoder
from stores.base import StoreError

logger = logging.getLogger(__name__)

# Each takes a thread of its worker for as long as it runs; gunicorn.conf.py gives a worker more than these.
AT_ONCE = 2
# A client that takes less than a piece in this time is gone, or as good as.
SEND_SECONDS = 60.0
PIECE_BYTES = 256 * 1024
# An export that runs when the service is told to stop may go on for so long; the service has 8 s.
STOP_SECONDS = 5.0

_slots = threading.BoundedSemaphore(AT_ONCE)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class TooManyExports(APIException):
    """Other exports take all the places."""

    status_code = 503
    default_detail = f"{AT_ONCE} exports are running, which is as many as this worker runs at once: ask again"


class ExportBroken(Exception):
    """An export ended before its end. The connection is to be cut, so that the client knows."""


class _Serving:
    """Whether the process goes on serving; exports end soon after it does not."""

    def __init__(self) -> None:
        self.goes_on: Callable[[], bool] = lambda: True


serving = _Serving()


def export(
    request: Request, parts: Iterator[Any], make_encoder: Callable[[], Encoder], *, media_type: str, name: str
) -> HttpResponseBase:
    """The answer with all rows of ``parts``, as a file to be kept under ``name``.

    Raises TooManyExports, and what the store raises before its first rows.
    """
    headers = {
        "Content-Type": media_type,
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-store",
    }
    if request.method == "HEAD":
        return HttpResponse(headers=headers)
    if not _slots.acquire(blocking=False):
        raise TooManyExports
    body = _Body(parts, make_encoder)
    try:
        body.start()
        _limit_sending(request)
        return StreamingHttpResponse(body, headers=headers)
    except BaseException:
        body.close()
        raise


def file_name(*words: str, extension: str) -> str:
    """A name that any system takes: the words that are not empty, and the present time."""
    told = [text for word in words if (text := _UNSAFE.sub("-", word).strip("-.")[:80])]
    return f"{'_'.join([*told, time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())])}.{extension}"


class _Body:
    """The pieces of an export. Holds a place until it is closed, which the server does in any case."""

    def __init__(self, parts: Iterator[Any], make_encoder: Callable[[], Encoder]) -> None:
        self._parts = parts
        self._make_encoder = make_encoder
        self._pieces: Iterator[bytes] = iter(())
        self._open = True

    def start(self) -> None:
        """Read the first rows, so that a store that is away is told with a status of its own."""
        first = next(self._parts, None)
        self._pieces = self._run(chain(() if first is None else (first,), self._parts), self._make_encoder())

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        """Let go of the store and of the place. Idempotent."""
        if self._open:
            self._open = False
            for each in (self._pieces, self._parts):
                if (close := getattr(each, "close", None)) is not None:
                    close()
            _slots.release()

    def _run(self, parts: Iterator[Any], encoder: Encoder) -> Iterator[bytes]:
        try:
            yield from _cut(encoder.begin())
            stop_at: float | None = None
            for part in parts:
                if not serving.goes_on():
                    stop_at = stop_at or time.monotonic() + STOP_SECONDS
                    if time.monotonic() > stop_at:
                        raise ExportBroken("the service is stopping")
                yield from _cut(encoder.encode(part))
            yield from _cut(encoder.end())
        except ExportBroken as error:
            logger.warning("an export was broken off: %s", error)
            yield encoder.broken(str(error))
            raise
        except StoreError as error:
            logger.warning("an export was broken off: %s", error)
            yield encoder.broken("the store of readings does not answer")
            raise ExportBroken("the store of readings does not answer") from error
        except Exception:
            yield encoder.broken("a fault of ours: the log of the web service has the details")
            raise


def _cut(data: bytes) -> Iterator[bytes]:
    """Pieces that a slow client can take in time."""
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]


def _limit_sending(request: Request) -> None:
    """No piece may take for ever: the thread would be lost to a client that does not read."""
    connection = request.META.get("gunicorn.socket")
    if isinstance(connection, socket.socket):
        connection.settimeout(SEND_SECONDS)
