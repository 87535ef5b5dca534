"""The wire: frames, the requests in them and the answers to them. No input or output here.

    +----------------+---------------------------------+
    | length (u32be) | length bytes: one JSON object   |
    +----------------+---------------------------------+

``payload`` and ``message_id`` stay the bytes they came as: the broker never interprets them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import repeat
from struct import Struct
from typing import Any

import msgspec

from broker.errors import BrokerError, for_code
from broker.log.record import MAX_SEQUENCE

try:
    import simdjson
except ImportError:  # no build for this Python: it works without, slower
    _parse_payload: Callable[[bytes], object] | None = None
else:
    _parse_payload = simdjson.Parser().parse

PREFIX = 4
# Smaller pieces of an unfinished frame are gathered into one buffer, so that a peer that sends single bytes costs no
# object for each of them.
_SMALL_PIECE = 4096
_GATHERED = 1 << 16
MAX_MARK_BYTES = 1024

_CLOSING = ord("}")
_json = msgspec.json.Encoder()
_length = Struct(">I").unpack_from


class FrameReader:
    """Cuts a stream of bytes into frames. Memory follows what has arrived, never what a length announces.

    ``keep_prefix`` leaves the 4 length bytes on the frames (the client checks a record with them).
    """

    def __init__(self, max_frame: int, *, keep_prefix: bool = False) -> None:
        self.max_frame = max_frame
        self.fault: BrokerError | None = None
        self.held = 0  # bytes of the unfinished frame
        self._skip = 0 if keep_prefix else PREFIX
        self._pieces: list[bytes | bytearray] = []
        self._need = PREFIX
        self._rest = b""  # not looked at yet; then nothing is held

    @property
    def unread(self) -> int:
        """Bytes that were not looked at yet: ``find`` again."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that ``data`` completes, in order. As ``find``."""
        return [held[start:stop] for held, start, stop in self.find(data)]

    def find(self, data: bytes = b"", most: int = sys.maxsize) -> list[tuple[bytes, int, int]]:
        """The frames that ``data`` completes, in order: each as the bytes it lies in, its start and its stop there. At most
        ``most``; the others stay ``unread``.

        A length of 0 or over ``max_frame`` sets ``fault`` (codes bad_frame, too_large): the stream cannot be followed
        any further and everything after it is ignored. Raises nothing.
        """
        frames: list[tuple[bytes, int, int]] = []
        if self.fault is not None:
            return frames
        position, skip = 0, self._skip
        if self._rest:
            data, self._rest = self._rest + data, b""
        if self.held:
            missing = self._need - self.held
            if len(data) < missing:
                self._keep(data)
                return frames
            if self._need == PREFIX:  # not even a length yet
                data = b"".join((*self._pieces, data))
            else:
                # Only this one frame is put together: the rest of what came is large, and copied once, frame by frame.
                frames.append((b"".join((*self._pieces, memoryview(data)[:missing])), skip, self._need))
                position = missing
            self._pieces.clear()
            self.held = 0
        end = len(data)
        self._need = PREFIX
        while end - position >= PREFIX and len(frames) < most:
            start = position + PREFIX
            (length,) = _length(data, position)
            if not 0 < length <= self.max_frame:
                self.fault = _bad_length(length, self.max_frame)
                return frames
            stop = start + length
            if stop > end:
                self._need = PREFIX + length
                break
            frames.append((data, position + skip, stop))
            position = stop
        if position < end:
            rest = data[position:] if position else data
            if len(frames) < most:
                self._keep(rest)
            else:
                self._rest = rest
        return frames

    def _keep(self, data: bytes) -> None:
        self.held += len(data)
        if len(data) >= _SMALL_PIECE:
            self._pieces.append(data)
            return
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, bytearray) and len(last) < _GATHERED:
            last += data
        else:
            self._pieces.append(bytearray(data))


def _bad_length(length: int, max_frame: int) -> BrokerError:
    if length == 0:
        return for_code("bad_frame", "a frame cannot be empty: its length is 0")
    return for_code("too_large", f"a frame of {length} bytes: at most {max_frame} are taken")


def frame(body: bytes) -> bytes:
    """``body`` with its length in front."""
    return len(body).to_bytes(PREFIX, "big") + body


# Its parser keeps memory of several times the largest text it saw.
_QUICK_BYTES = 1 << 18
# A payload that begins with a byte of three (as a byte order mark does, which the parser would pass over) is looked at closer.
_LEADS_THREE = 0xE0


_ANONYMOUS_HEAD = b'{"type":"publish","payload":'


def publish_head(producer: str, sequence: int) -> bytes:
    """How a publish begins, up to its payload. No producer ("") has no sequence."""
    return _layout(producer) % sequence if producer else _ANONYMOUS_HEAD


def _layout(producer: str) -> bytes:
    return b'{"type":"publish","producer":"%b","sequence":%%d,"payload":' % producer.encode()


def quick_payloads(frames: Sequence[tuple[bytes, int, int]], producer: str, sequence: int, most: int) -> list[bytes]:
    """The payloads of the frames up to the first that is not a publish of that producer, with sequences in a row from
    ``sequence`` on, laid out as by ``publish_frame``, with a payload of at most ``most`` bytes that is one JSON text that
    every reader can read. Where it ends is no verdict on the next frame: ``decode_request`` has it.

    simdjson checks all that is to be checked (syntax, UTF-8, numbers) at 3 GB/s; decode_request takes four times as long.
    """
    payloads: list[bytes] = []
    parse = _parse_payload
    if parse is None:
        return payloads
    heads = map(_layout(producer).__mod__, range(sequence, MAX_SEQUENCE + 1)) if producer else repeat(_ANONYMOUS_HEAD)
    most = min(most, _QUICK_BYTES)
    with suppress(ValueError, RuntimeError):  # the parser's, of a payload that it cannot read
        for (data, start, stop), head in zip(frames, heads, strict=False):
            begin, end = start + len(head), stop - 1
            if (
                not data.startswith(head, start, stop)
                or data[end] != _CLOSING
                or data[begin] >= _LEADS_THREE
                or end - begin > most
            ):
                break
            payload = data[begin:end]
            parse(payload)
            payloads.append(payload)
    return payloads


class Request(msgspec.Struct, gc=False):
    """What a client asks. Fields that a kind of request does not use are ignored, whatever they hold."""

    type: Any = None
    payload: msgspec.Raw = msgspec.Raw()
    message_id: msgspec.Raw = msgspec.Raw()
    producer: Any = None
    sequence: Any = None
    subscriber_id: Any = None
    offset: Any = None
    token: Any = None
    client: Any = None


_decode = msgspec.json.Decoder(Request).decode
_decode_anything = msgspec.json.Decoder().decode

# A number outside the range of a double has an exponent, or 300 digits. The decoder passes over the payload without
# reading its numbers, and reading them all would cost four times as much as the rest: so look for what such a number
# leaves behind, and where that is found, look closer.
#
# An exponent: what is left of a number that has one, when all but e, quotes and delimiters is deleted and all delimiters
# are made commas. (r and s stay, so that true and false leave something else; a string is in quotes.)
_DELIMITERS = b",:[]} \t\r\n"
_KEPT = b'eE"rs' + _DELIMITERS
_DELETED = bytes(byte for byte in range(256) if byte not in _KEPT)
_BARE = bytes.maketrans(b"E" + _DELIMITERS, b"e" + b"," * len(_DELIMITERS))
_EXPONENT = b",e,"
# One that is 10 or more. A number ends before one of the bytes in the last bracket; that it also matches inside strings
# does no harm.
_BIG_EXPONENT = re.compile(rb"[eE]\+?[0-9]{2,}[\s,\]}]")
# Of 300 digits, nine in a row are left when only each 32nd byte is looked at.
_MANY = 300
_STRIDE = 32
_DIGITS_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_SOME_ZEROS, _MANY_ZEROS = b"0" * (_MANY // _STRIDE), b"0" * _MANY


def decode_request(body: bytes) -> Request:
    """The request in a frame. Raises BrokerError bad_frame where it is not one JSON object that every reader can read:
    malformed, not UTF-8, too deep, or with a number out of the range of a double."""
    try:
        request = _decode(body)
        if not body.isascii():
            body.decode()  # what the decoder skipped (the payload) it did not check
        if _may_hold_unreadable_number(body):
            _decode_anything(body)
    except (ValueError, RecursionError) as error:
        raise for_code("bad_frame", f"not a frame: {_reason(error)}") from None
    return request


def _may_hold_unreadable_number(body: bytes) -> bool:
    if _EXPONENT in body.translate(_BARE, _DELETED) and _BIG_EXPONENT.search(body):
        return True
    return (
        len(body) > _MANY
        and _SOME_ZEROS in body[::_STRIDE].translate(_DIGITS_AS_ZEROS)
        and _MANY_ZEROS in body.translate(_DIGITS_AS_ZEROS)
    )


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "the text is not UTF-8"
    if isinstance(error, RecursionError):
        return "the JSON is nested too deeply"
    return str(error)


_ANSWER = b'{"type":"response","success":true,"offset":%d}'


def publish_responses(offset: int, count: int, marks: Sequence[bytes] = (), *, duplicate: bool = False) -> bytes:
    """The frames that answer publishes with offsets in a row. ``marks`` are the client's message_ids as JSON, if it gave
    any."""
    if marks or duplicate:
        names = [b'"message_id":%b,' % mark for mark in marks] or [b""] * count
        end = b',"duplicate":true' if duplicate else b""
        return b"".join(
            frame(b'{"type":"response","success":true,%b"offset":%d%b}' % (name, one, end))
            for one, name in enumerate(names, offset)
        )
    made = []
    while count > 0:
        # All with as many digits as the first have its length, and are formatted in one go. (A length of 45 or more holds no
        # "%", which is 37.)
        answer = frame(_ANSWER % offset)
        fit = min(count, 10 ** len(b"%d" % offset) - offset)
        layout = answer[:PREFIX] + _ANSWER
        made.append(layout * fit % tuple(range(offset, offset + fit)))
        offset, count = offset + fit, count - fit
    return b"".join(made)


def response(mark: bytes = b"", **fields: object) -> bytes:
    """The frame that answers any other request."""
    answer: dict[str, object] = {"type": "response", "success": True}
    if mark:
        answer["message_id"] = msgspec.Raw(mark)
    return frame(_json.encode(answer | fields))


def error_frame(error: BrokerError, mark: bytes = b"") -> bytes:
    """The frame that refuses a request."""
    answer: dict[str, object] = {"type": "error", "error": str(error), "code": error.code}
    if mark:
        answer["message_id"] = msgspec.Raw(mark)
    return frame(_json.encode(answer))


def gap_frame(first: int, last: int, reason: str) -> bytes:
    """The frame that says which offsets (both included) a subscriber will not get."""
    return frame(_json.encode({"type": "gap", "from": first, "to": last, "reason": reason}))


def welcome_frame(oldest: int, next_offset: int, max_frame: int, fsync: str) -> bytes:
    """The frame that answers a hello."""
    return frame(
        _json.encode({"type": "welcome", "oldest": oldest, "next": next_offset, "max_frame": max_frame, "fsync": fsync})
    )


def publish_frame(payload: bytes, producer: str, sequence: int) -> bytes:
    """The client's request to append ``payload`` (JSON)."""
    head = publish_head(producer, sequence)
    return b"".join(((len(head) + len(payload) + 1).to_bytes(PREFIX, "big"), head, payload, b"}"))


def request_frame(kind: str, **fields: object) -> bytes:
    """Any other request of a client; a field that is None is left out."""
    return frame(_json.encode({"type": kind} | {name: value for name, value in fields.items() if value is not None}))


PING = frame(b'{"type":"ping"}')
PONG = frame(b'{"type":"pong"}')
GOAWAY = frame(b'{"type":"goaway","reason":"shutting_down"}')
