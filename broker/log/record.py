"""One record: the same bytes on disk and on the wire, so delivering a message means copying it.

      0  u32 big-endian   length of the rest
      4  {"type":"message","c32":"
     29  xxxxxxxx         CRC-32C in lower-case hex, over every byte before and after these eight
     37  ","offset":
     48  %16d             number in the log, padded with spaces
     64  ,"timestamp":
     77  %13d             Unix milliseconds
     90  ,"message_id":"
    105  %16s:%012d       the producer's key (16 hex digits) and its sequence; without a producer: zeros and the offset
    134  ","payload":
    146  …                the payload as it was published: any JSON value
    -1   }

The head has a fixed width, so each field is found by slicing. The CRC covers the length too, and is compared as bytes:
parsing it would accept "A" for "a". After damage, a record is found again by its literal head: a length under 0x09000000
precedes it, and JSON text cannot hold a byte under 0x09, so no payload can forge one.
"""

from __future__ import annotations

import re
from binascii import hexlify
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from operator import itemgetter
from typing import NamedTuple

from google_crc32c import extend as _crc32c

from broker.errors import CorruptRecord

PREFIX_SIZE = 4
MESSAGE = b'{"type":"message"'
HEAD = MESSAGE + b',"c32":"'
CRC_START = PREFIX_SIZE + len(HEAD)
CRC_END = CRC_START + 8
OFFSET_START, OFFSET_END = 48, 64
TIMESTAMP_START, TIMESTAMP_END = 77, 90
PRODUCER_START, PRODUCER_END = 105, 121
SEQUENCE_START, SEQUENCE_END = 122, 134
PAYLOAD_START = 146
# A record is this much longer than its payload.
OVERHEAD = PAYLOAD_START + 1

# Keeps the first byte of a length below 0x09, which JSON text cannot hold.
MAX_LENGTH = 0x09000000 - 1
MAX_PAYLOAD = MAX_LENGTH - OVERHEAD
MAX_SEQUENCE = 10**12 - 1

NO_PRODUCER = "0" * 16
_PRODUCER = re.compile(r"[0-9a-f]{16}")
# Up to this size, copying the payload once more beats a separate checksum call: a third less time.
_COPIED = 4096


class Record(NamedTuple):
    """One message of the log. ``timestamp_ms`` is Unix milliseconds; ``producer`` is empty if there is none."""

    offset: int
    timestamp_ms: int
    producer: str
    sequence: int
    payload: bytes

    @property
    def message_id(self) -> str:
        """The message's id on the wire."""
        return message_id(self.offset, self.producer, self.sequence)


class Gap(NamedTuple):
    """Offsets ``first`` to ``last`` (included) that can no longer be read; ``reason`` is "retention" or "corrupt"."""

    first: int
    last: int
    reason: str


def message_id(offset: int, producer: str, sequence: int) -> str:
    """Returns a message's id, made of its producer and sequence, or of its offset if it has no producer."""
    return f"{producer}:{sequence:012d}" if producer else f"{NO_PRODUCER}:{offset % (MAX_SEQUENCE + 1):012d}"


def check_producer(producer: str) -> None:
    """Raises ValueError unless ``producer`` is 16 lower-case hex digits, not all zero."""
    if not _PRODUCER.fullmatch(producer) or producer == NO_PRODUCER:
        raise ValueError(f"producer {producer[:40]!r} is not 16 lower-case hex digits (not all zero)")


def key_of(producer: str) -> str:
    """Returns what records hold in place of a producer's id: 16 hex digits of its SHA-256.

    So a subscriber cannot learn the id from a message, and publish under it.
    """
    return sha256(producer.encode()).hexdigest()[:16]


def payload_checksum(payload: bytes) -> str:
    """Returns the CRC-32C of a payload in lower-case hex."""
    return f"{_crc32c(0, payload):08x}"


def crc_of(head: bytes, rest: bytes) -> bytes:
    """Returns a record's checksum as it is written; ``head`` ends where the checksum begins, ``rest`` follows it."""
    return b"%08x" % _crc32c(_crc32c(0, head), rest)


# Formatting numbers takes 14 % of the broker's time for a small message. Records in a row have numbers in a row: of a
# thousand, only the last three digits differ, and those come from a table.
_BLOCK = 1000
_ENDS = [b"%03d" % number for number in range(_BLOCK)]
_FIRST_ENDS = [b"%3d" % number for number in range(_BLOCK)]  # for a number with no other digits, padded with spaces


def append_records(
    parts: list[bytes], timestamp_ms: int, producer: bytes, offset: int, sequence: int, payloads: Sequence[bytes]
) -> None:
    """Encodes records in a row into ``parts``, to be joined by the caller, so that large payloads are copied only once.

    Does not check that the numbers fit their fields or that the payloads are JSON. Sequences wrap to 0 after the highest.
    Raises ValueError for a payload that fits no record.
    """
    done = 0
    while done < len(payloads):
        (blocks, at), (sequence_blocks, sequence_at) = divmod(offset + done, _BLOCK), divmod(sequence + done, _BLOCK)
        count = min(len(payloads) - done, _BLOCK - at, _BLOCK - sequence_at)
        before = b'","offset":%13b' % (b"%d" % blocks if blocks else b"")
        between = b',"timestamp":%13d,"message_id":"%b:%09d' % (
            timestamp_ms,
            producer,
            sequence_blocks % ((MAX_SEQUENCE + 1) // _BLOCK),
        )
        ends = (_ENDS if blocks else _FIRST_ENDS)[at : at + count]
        sequence_ends = _ENDS[sequence_at : sequence_at + count]
        for payload, end, sequence_end in zip(payloads[done : done + count], ends, sequence_ends, strict=True):
            size = len(payload)
            start, crc = _start_of(size)
            if size <= _COPIED:
                rest = b"".join((before, end, between, sequence_end, b'","payload":', payload, b"}"))
                parts += (start, hexlify(_crc32c(crc, rest).to_bytes(4, "big")), rest)
            else:
                fields = b"".join((before, end, between, sequence_end, b'","payload":'))
                crc = _crc32c(_crc32c(_crc32c(crc, fields), payload), b"}")
                parts += (start, b"%08x" % crc, fields, payload, b"}")
        done += count


@lru_cache(4096)  # messages of one source have few sizes: 12 % of the broker's time for a small message
def _start_of(size: int) -> tuple[bytes, int]:
    """Returns the start of a record with a payload of that size, and the checksum so far."""
    if not 0 < size <= MAX_PAYLOAD:
        raise ValueError(f"a payload of {size} bytes is not within 1 and {MAX_PAYLOAD}")
    start = (size + (OVERHEAD - PREFIX_SIZE)).to_bytes(PREFIX_SIZE, "big") + HEAD
    return start, _crc32c(0, start)


def encode_record(offset: int, timestamp_ms: int, producer: str, sequence: int, payload: bytes) -> bytes:
    """Returns the frame of one record, including its length.

    Ignores ``sequence`` if ``producer`` is empty. Raises ValueError for a field that does not fit.
    """
    if producer:
        check_producer(producer)
    else:
        producer, sequence = NO_PRODUCER, offset % (MAX_SEQUENCE + 1)
    if not 0 <= sequence <= MAX_SEQUENCE:
        raise ValueError(f"sequence {sequence} is not within 0 and {MAX_SEQUENCE}")
    if not (0 <= offset < 10**16 and 0 <= timestamp_ms < 10**13):
        raise ValueError(f"offset {offset} or timestamp {timestamp_ms} does not fit its field")
    parts: list[bytes] = []
    append_records(parts, timestamp_ms, producer.encode(), offset, sequence, (payload,))
    return b"".join(parts)


# The bytes that every head shares.
_fixed = itemgetter(*(slice(a, b) for a, b in ((37, 48), (64, 77), (90, 105), (121, 122), (134, 146))))
_FIXED = _fixed(encode_record(0, 0, "", 0, b"0"))


def decode_record(frame: bytes | memoryview) -> Record:
    """Decodes one whole frame, including its length. Raises CorruptRecord if any byte differs from what was written."""
    head = bytes(frame[:PAYLOAD_START])
    if len(frame) <= OVERHEAD or int.from_bytes(head[:PREFIX_SIZE], "big") != len(frame) - PREFIX_SIZE:
        raise CorruptRecord(f"the record has {len(frame)} bytes, which is not the length it states")
    if crc_of(head[:CRC_START], bytes(frame[CRC_END:])) != head[CRC_START:CRC_END]:
        raise CorruptRecord("the record does not match its checksum")
    return _read_fields(head, bytes(frame[PAYLOAD_START:-1]))


def _read_fields(head: bytes, payload: bytes) -> Record:
    """Parses a head whose checksum matches. Still checks the layout: the peer may have built it wrong."""
    if not head.startswith(HEAD, PREFIX_SIZE) or _fixed(head) != _FIXED:
        raise CorruptRecord("the record does not have the layout of a record")
    try:
        offset = int(head[OFFSET_START:OFFSET_END])
        timestamp_ms = int(head[TIMESTAMP_START:TIMESTAMP_END])
        sequence = int(head[SEQUENCE_START:SEQUENCE_END])
        producer = head[PRODUCER_START:PRODUCER_END].decode("ascii")
    except ValueError as error:
        raise CorruptRecord(f"the record's head has a bad field: {error}") from None
    return Record(offset, timestamp_ms, "" if producer == NO_PRODUCER else producer, sequence, payload)
