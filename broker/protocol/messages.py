"""The messages in frames: a client's requests and the broker's answers. Does no input or output.

``payload`` and ``message_id`` stay the bytes they came as: the broker never interprets them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import repeat
from typing import Any

import msgspec

from broker.errors import BrokerError, for_code
from broker.log.record import MAX_SEQUENCE
from broker.protocol.frames import PREFIX, frame

try:
    import simdjson
except ImportError:  # no build for this Python: the broker works without it, slower
    _parser: simdjson.Parser | None = None
else:
    _parser = simdjson.Parser()

MAX_MARK_BYTES = 1024

_CLOSING = ord("}")
_json = msgspec.json.Encoder()
# The shared parser keeps several times the size of the largest text it has parsed.
_QUICK_BYTES = 1 << 18
# The first byte of a three-byte character, as of a byte order mark, which the parser would skip.
_LEADS_THREE = 0xE0

_ANONYMOUS_HEAD = b'{"type":"publish","payload":'


def publish_head(producer: str, sequence: int) -> bytes:
    """Returns how a publish begins, up to its payload. Without a producer ("") there is no sequence."""
    return _layout(producer) % sequence if producer else _ANONYMOUS_HEAD


def _layout(producer: str) -> bytes:
    return b'{"type":"publish","producer":"%b","sequence":%%d,"payload":' % producer.encode()


def quick_payloads(frames: Sequence[tuple[bytes, int, int]], producer: str, sequence: int, most: int) -> list[bytes]:
    """Returns the payloads of the leading frames that are publishes of that producer, numbered from ``sequence`` on.

    Stops at the first frame that is not laid out as by ``publish_frame``, or whose payload is over ``most`` bytes or not
    JSON that every reader can read. That frame may still be good: ``decode_request`` decides.

    simdjson checks syntax, UTF-8 and numbers at 3 GB/s; decode_request takes four times as long.
    """
    payloads: list[bytes] = []
    if _parser is None:
        return payloads
    parse = _parser.parse
    heads = map(_layout(producer).__mod__, range(sequence, MAX_SEQUENCE + 1)) if producer else repeat(_ANONYMOUS_HEAD)
    most = min(most, _QUICK_BYTES)
    with suppress(ValueError, RuntimeError):  # the parser cannot read a payload
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
    """A client's request. Fields that its type does not use are ignored, whatever they hold."""

    type: Any = None
    payload: msgspec.Raw = msgspec.Raw()
    message_id: msgspec.Raw = msgspec.Raw()
    producer: Any = None
    sequence: Any = None
    subscriber_id: Any = None
    offset: Any = None
    token: Any = None
    client: Any = None
    log: Any = None
    last_offset: Any = None
    last_c32: Any = None


_decode = msgspec.json.Decoder(Request).decode
_decode_anything = msgspec.json.Decoder().decode


def decode_request(body: bytes) -> Request:
    """Decodes a frame. Raises BrokerError bad_frame unless it is one JSON object that every reader can read: malformed,
    not UTF-8, too deep, or with a number outside the range of a double."""
    try:
        request = _decode(body)
        if not _is_readable(body):  # the decoder skips the payload without checking its text and numbers
            _decode_anything(body)
    except (ValueError, RecursionError) as error:
        raise for_code("bad_frame", f"not a frame: {_reason(error)}") from None
    return request


def _is_readable(body: bytes) -> bool:
    """Whether simdjson can read it. It is stricter than the decoder: it has no numbers over 64 bits, for one."""
    if _parser is None:
        return False
    try:
        (_parser if len(body) <= _QUICK_BYTES else simdjson.Parser()).parse(body)
    except (ValueError, RuntimeError):
        return False
    return True


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "the text is not UTF-8"
    if isinstance(error, RecursionError):
        return "the JSON is nested too deeply"
    return str(error)


_ANSWER = b'{"type":"response","success":true,"offset":%d}'


def publish_responses(
    offset: int, count: int, marks: Sequence[bytes] = (), *, duplicate: bool = False, checksum: str = ""
) -> bytes:
    """Returns the frames that answer publishes at consecutive offsets. ``marks`` are the client's message_ids as JSON, one
    for each or none. ``checksum`` is that of the payload that a duplicate has in the log, empty if it cannot be read."""
    if marks or duplicate:
        names = [b'"message_id":%b,' % mark for mark in marks] or [b""] * count
        end = b',"duplicate":true' if duplicate else b""
        if checksum:
            end += b',"payload_c32":"%b"' % checksum.encode()
        return b"".join(
            frame(b'{"type":"response","success":true,%b"offset":%d%b}' % (name, one, end))
            for one, name in enumerate(names, offset)
        )
    return b"".join([frame(_ANSWER % one) for one in range(offset, offset + count)])


def response(mark: bytes = b"", **fields: object) -> bytes:
    """Returns the frame that answers any other request."""
    answer: dict[str, object] = {"type": "response", "success": True}
    if mark:
        answer["message_id"] = msgspec.Raw(mark)
    return frame(_json.encode(answer | fields))


def error_frame(error: BrokerError, mark: bytes = b"") -> bytes:
    """Returns the frame that refuses a request."""
    answer: dict[str, object] = {"type": "error", "error": str(error), "code": error.code}
    if mark:
        answer["message_id"] = msgspec.Raw(mark)
    return frame(_json.encode(answer))


def gap_frame(first: int, last: int, reason: str) -> bytes:
    """Returns the frame that reports offsets (both included) that a subscriber will not get."""
    return frame(_json.encode({"type": "gap", "from": first, "to": last, "reason": reason}))


def welcome_frame(oldest: int, next_offset: int, max_frame: int, fsync: str, log: str = "") -> bytes:
    """Returns the frame that answers a hello."""
    welcome = {
        "type": "welcome",
        "oldest": oldest,
        "next": next_offset,
        "max_frame": max_frame,
        "fsync": fsync,
        "log": log,
    }
    return frame(_json.encode(welcome))


def publish_frame(payload: bytes, producer: str, sequence: int) -> bytes:
    """Returns a client's request to append ``payload`` (JSON)."""
    head = publish_head(producer, sequence)
    return b"".join(((len(head) + len(payload) + 1).to_bytes(PREFIX, "big"), head, payload, b"}"))


def request_frame(kind: str, **fields: object) -> bytes:
    """Returns any other request of a client, without the fields that are None."""
    return frame(_json.encode({"type": kind} | {name: value for name, value in fields.items() if value is not None}))


PING = frame(b'{"type":"ping"}')
PONG = frame(b'{"type":"pong"}')
GOAWAY = frame(b'{"type":"goaway","reason":"shutting_down"}')
