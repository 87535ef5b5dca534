"""Cuts the bytes of a connection into whole requests. Nothing here waits or reads a socket.

gunicorn parses each head, with its checks against request smuggling. A request's body is whole before anybody sees it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

from gunicorn.http import errors
from gunicorn.http.body import ChunkedReader
from gunicorn.http.message import MAX_REQUEST_LINE, Request
from gunicorn.http.unreader import IterUnreader

from api.server import limits

_CR, _LF = 13, 10
_UPPER_CASE = range(ord("A"), ord("Z") + 1)
# RFC 9112, 7.1: a size, and extensions, which are ignored.
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_MAX_CHUNK_LINE = 256
_STATUSES: tuple[tuple[type[Exception], int, str], ...] = (
    (errors.LimitRequestLine, 414, "URI Too Long"),
    (errors.LimitRequestHeaders, 431, "Request Header Fields Too Large"),
    (errors.ExpectationFailed, 417, "Expectation Failed"),
    (errors.UnsupportedTransferCoding, 501, "Not Implemented"),
    (errors.ParseException, 400, "Bad Request"),
)


class RequestRefused(Exception):
    """The bytes are no request that the service answers. The connection ends after the answer."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Requests:
    """The requests of one connection, one after the other: feed() what came, then take() what is whole."""

    def __init__(self, cfg: Any, client: Any) -> None:
        self._cfg = cfg
        self._client = client
        self._buffer = bytearray()
        self._number = 0
        self._scanned = 0  # up to here the buffer has no end of a head
        self._skipped_line = False  # the one that may come before a request
        self._line = 0  # where the head's current line begins
        self._request: Any = None  # its head is parsed, its body not whole
        self._take_body: Callable[[], bytes | None] = bytes
        self.owes_continue = False  # the client waits for a 100 before it sends its body

    @property
    def waiting(self) -> int:
        """How many bytes of requests that were not taken yet are here."""
        return len(self._buffer)

    @property
    def begun(self) -> bool:
        """Whether a part of the next request is here."""
        return bool(self._buffer) or self._request is not None

    def feed(self, data: bytes) -> None:
        """Add what the client sent."""
        self._buffer += data

    def take(self) -> Any:
        """The next whole request, a gunicorn Request whose ``body`` is a file, or None if more is needed. Raises RequestRefused."""
        request: Any = self._request
        if request is None:
            end = self._end_of_head()
            if end is None:
                return None
            request = self._request = self._begin(end)
        body = self._take_body()
        if body is None:
            return None
        self._request, self.owes_continue = None, False
        request.body = io.BytesIO(body)
        if any(name == "TRANSFER-ENCODING" for name, _ in request.headers):
            # Django takes the length from this header alone.
            kept = [header for header in request.headers if header[0] != "TRANSFER-ENCODING"]
            request.headers = [*kept, ("CONTENT-LENGTH", str(len(body)))]
        return request

    def _end_of_head(self) -> int | None:
        """Looks at each byte once, however slowly they come. Checks what would otherwise never end."""
        buffer = self._buffer
        if self._scanned == 0:
            # RFC 9112, 2.2: one empty line before the request is ignored.
            if buffer[:2] == b"\r\n" and not self._skipped_line:
                self._skipped_line = True
                del buffer[:2]
            if buffer and buffer[0] not in _UPPER_CASE and (buffer != b"\r" or self._skipped_line):
                raise RequestRefused(400, "Bad Request", "this is not HTTP: a request begins with its method")
        while (at := buffer.find(_LF, self._scanned)) >= 0:
            if at == 0 or buffer[at - 1] != _CR:
                raise RequestRefused(400, "Bad Request", "a line of the request's head does not end with CR LF")
            self._scanned = at + 1
            if at == self._line + 1:
                break
            self._check_line(at - 1)
            self._line = at + 1
        else:
            self._scanned = 0 if buffer == b"\r" else len(buffer)
            self._check_line(len(buffer))
            if len(buffer) > limits.MAX_HEAD_BYTES:
                raise _too_large()
            return None
        end, self._scanned, self._line = self._scanned, 0, 0
        if end > limits.MAX_HEAD_BYTES:
            raise _too_large()
        return end

    def _check_line(self, end: int) -> None:
        if end - self._line > MAX_REQUEST_LINE:
            if self._line == 0:
                raise RequestRefused(414, "URI Too Long", f"the request line is longer than {MAX_REQUEST_LINE} bytes")
            raise RequestRefused(
                431, "Request Header Fields Too Large", f"a header is longer than {MAX_REQUEST_LINE} bytes"
            )

    def _begin(self, end: int) -> Any:
        """Parse the head, and decide how its body ends."""
        head = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._number += 1
        self._skipped_line = False
        try:
            request: Any = Request(self._cfg, IterUnreader([head]), self._client, self._number)
        except (errors.NoMoreData, StopIteration):
            raise RequestRefused(400, "Bad Request", "the request's head is not complete") from None
        except errors.ParseException as error:
            raise _refusal(error) from None
        reader = request.body.reader
        if isinstance(reader, ChunkedReader):
            self._take_body = _Chunks(self._buffer).take
        else:
            length = reader.length
            if length > limits.MAX_BODY_BYTES:
                raise _body_too_large()
            self._take_body = lambda: self._cut(length)
        # gunicorn would send the 100 itself, after the body.
        self.owes_continue, request._expected_100_continue = request._expected_100_continue, False
        return request

    def _cut(self, length: int) -> bytes | None:
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body


class _Chunks:
    """Takes a chunked body (RFC 9112, 7.1) from the front of a buffer, as it comes."""

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self._body = bytearray()
        self._left = -1  # bytes of the chunk that are still to come; -1: its size is
        self._trailers: int | None = None  # bytes of the lines after the last chunk

    def take(self) -> bytes | None:
        """The whole body, or None if more is needed. Raises RequestRefused."""
        while True:
            if self._left > 0:
                piece = self._buffer[: self._left]
                del self._buffer[: len(piece)]
                self._body += piece
                self._left -= len(piece)
                if self._left:
                    return None
            line = self._take_line()
            if line is None:
                return None
            if self._trailers is not None:
                self._trailers += len(line) + 2
                if not line:
                    return bytes(self._body)
                if self._trailers > MAX_REQUEST_LINE:
                    raise _too_large()
            elif self._left == 0:
                if line:
                    raise RequestRefused(400, "Bad Request", "a chunk is longer than it says")
                self._left = -1
            else:
                self._begin(line)

    def _begin(self, line: bytes) -> None:
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            raise RequestRefused(400, "Bad Request", "the size of a chunk is not a hexadecimal number")
        self._left = int(size[1], 16)
        if self._left == 0:
            self._trailers = 0
        elif len(self._body) + self._left > limits.MAX_BODY_BYTES:
            raise _body_too_large()

    def _take_line(self) -> bytes | None:
        most = MAX_REQUEST_LINE if self._trailers is not None else _MAX_CHUNK_LINE
        end = self._buffer.find(_LF, 0, most + 2)
        if end < 0:
            if len(self._buffer) > most:
                raise RequestRefused(400, "Bad Request", "a line between the chunks of the body is too long")
            return None
        if end == 0 or self._buffer[end - 1] != _CR:
            raise RequestRefused(400, "Bad Request", "a line between the chunks of the body does not end with CR LF")
        line = bytes(self._buffer[: end - 1])
        del self._buffer[: end + 1]
        return line


def _refusal(error: Exception) -> RequestRefused:
    status, reason = next((status, reason) for kind, status, reason in _STATUSES if isinstance(error, kind))
    return RequestRefused(status, reason, str(error))


def _too_large() -> RequestRefused:
    return RequestRefused(
        431, "Request Header Fields Too Large", f"the request's head is larger than {limits.MAX_HEAD_BYTES} bytes"
    )


def _body_too_large() -> RequestRefused:
    return RequestRefused(413, "Content Too Large", f"the request's body is larger than {limits.MAX_BODY_BYTES} bytes")
