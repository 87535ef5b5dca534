"""One record: the same bytes on disk and on the wire, so that delivering a message is copying it.

      0  u32 big-endian   n, the length of what follows
      4  {"type":"message","c32":"
     29  xxxxxxxx         CRC-32C, lower-case hex, of all the bytes before and after these eight
     37  ","offset":
     48  %16d             number in the log, padded with spaces
     64  ,"timestamp":
     77  %13d             Unix milliseconds
     90  ,"message_id":"
    105  %16s:%012d       producer (16 hex digits) and its sequence; with no producer: zeros and the offset
    134  ","payload":
    146  …                the payload as it was published: any JSON value
    -1   }

Where the name of the checksum is "crc" it is zlib's CRC-32: older logs, and systems without a fast CRC-32C (a hardware
instruction: 1 us for 25 KB, zlib takes 6). Both may stand in one log.

The head has a fixed width, so that every field is found by slicing. The CRC covers the length too, and is compared as
bytes: parsing it would take "A" for "a". After damage, a record is found again by its literal head: before it stands a
length under 0x09000000, and no byte under 0x09 can occur in JSON text, so no payload can forge one.
"""

from __future__ import annotations

import re
import warnings
from binascii import hexlify
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import NamedTuple
from zlib import crc32

from broker.errors import CorruptRecord

with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore", RuntimeWarning
    )  # that there is only the slow one here, which we take for reading alone
    import google_crc32c

# What every record has in common at its start; the rest of the checksum's name and the quotes follow.
HEAD = b'{"type":"message","c'
PREFIX_SIZE = 4
NAME_START, NAME_END = PREFIX_SIZE + len(HEAD), PREFIX_SIZE + len(HEAD) + 2
# By the end of its name: a function of the checksum so far and the bytes that follow.
CHECKSUMS: dict[bytes, Callable[[int, bytes], int]] = {
    b"32": google_crc32c.extend,
    b"rc": lambda before, data: crc32(data, before),
}
WRITTEN = b"32" if google_crc32c.implementation == "c" else b"rc"
CRC_START = NAME_END + len(b'":"')
CRC_END = CRC_START + 8
OFFSET_START, OFFSET_END = 48, 64
TIMESTAMP_START, TIMESTAMP_END = 77, 90
PRODUCER_START, PRODUCER_END = 105, 121
SEQUENCE_START, SEQUENCE_END = 122, 134
PAYLOAD_START = 146
# A record is its payload and this many bytes.
OVERHEAD = PAYLOAD_START + 1

# Lengths stay under it, so that a length's first byte is none that JSON text can hold.
MAX_LENGTH = 0x09000000 - 1
MAX_PAYLOAD = MAX_LENGTH - OVERHEAD
MAX_SEQUENCE = 10**12 - 1

_written = CHECKSUMS[WRITTEN]

NO_PRODUCER = "0" * 16
_PRODUCER = re.compile(r"[0-9a-f]{16}")
# A payload of so many bytes is copied once more rather than given to the checksum by itself: a third less time.
_COPIED = 4096
# By payload size: messages of one source have few sizes.
_starts: dict[int, tuple[bytes, int]] = {}
_MOST_STARTS = 4096


class Record(NamedTuple):
    """One message of the log. ``timestamp_ms`` is Unix milliseconds; no producer is an empty string."""

    offset: int
    timestamp_ms: int
    producer: str
    sequence: int
    payload: bytes

    @property
    def message_id(self) -> str:
        """The message's id on the wire."""
        return message_id(self.offset, self.producer, self.sequence)


def message_id(offset: int, producer: str, sequence: int) -> str:
    """A message's id: of its producer and sequence, or of its offset when it has no producer."""
    return f"{producer}:{sequence:012d}" if producer else f"{NO_PRODUCER}:{offset % (MAX_SEQUENCE + 1):012d}"


def check_producer(producer: str) -> None:
    """Raises ValueError unless it is 16 lower-case hex digits that are not all zero."""
    if not _PRODUCER.fullmatch(producer) or producer == NO_PRODUCER:
        raise ValueError(f"producer {producer[:40]!r} is not 16 lower-case hex digits (not all zero)")


# Formatting numbers would be a third of the work of a small record. Records in a row are numbered in a row: of a thousand
# numbers only the last three digits differ, and those are ready made.
_BLOCK = 1000
_ENDS = [b"%03d" % number for number in range(_BLOCK)]
_FIRST_ENDS = [b"%3d" % number for number in range(_BLOCK)]  # of a number padded with spaces that has no more digits


def append_records(
    parts: list[bytes], timestamp_ms: int, producer: bytes, offset: int, sequence: int, payloads: Sequence[bytes]
) -> None:
    """Lays out records in a row, in parts to be joined, so that each large payload is copied once.

    The numbers must fit their width and the payloads be valid JSON: neither is checked. Sequences begin again at 0 after the
    highest. Raises ValueError for a payload that fits no record.
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
            start, crc = _starts.get(size) or _make_start(size)
            if size <= _COPIED:
                rest = b"".join((before, end, between, sequence_end, b'","payload":', payload, b"}"))
                parts += (start, hexlify(_written(crc, rest).to_bytes(4, "big")), rest)
            else:
                fields = b"".join((before, end, between, sequence_end, b'","payload":'))
                crc = _written(_written(_written(crc, fields), payload), b"}")
                parts += (start, b"%08x" % crc, fields, payload, b"}")
        done += count


def _make_start(size: int) -> tuple[bytes, int]:
    """What a record with a payload of that size begins with, and its checksum so far."""
    if not 0 < size <= MAX_PAYLOAD:
        raise ValueError(f"a payload of {size} bytes is not within 1 and {MAX_PAYLOAD}")
    start = (size + (OVERHEAD - PREFIX_SIZE)).to_bytes(PREFIX_SIZE, "big") + HEAD + WRITTEN + b'":"'
    if len(_starts) >= _MOST_STARTS:
        _starts.clear()
    made = _starts[size] = start, _written(0, start)
    return made


def encode_record(offset: int, timestamp_ms: int, producer: str, sequence: int, payload: bytes) -> bytes:
    """The whole frame of one record, length included.

    Without a producer ("") the sequence counts for nothing. Raises ValueError for a field that does not fit.
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


# What is the same in all heads.
_fixed = itemgetter(*(slice(a, b) for a, b in ((26, 29), (37, 48), (64, 77), (90, 105), (121, 122), (134, 146))))
_FIXED = _fixed(encode_record(0, 0, "", 0, b"0"))


def decode_record(frame: bytes | memoryview) -> Record:
    """The record in one whole frame, length included. Raises CorruptRecord when any byte is not as written."""
    head = bytes(frame[:PAYLOAD_START])
    if len(frame) <= OVERHEAD or int.from_bytes(head[:PREFIX_SIZE], "big") != len(frame) - PREFIX_SIZE:
        raise CorruptRecord(f"{len(frame)} bytes are not the length that the record tells")
    checksum = CHECKSUMS.get(head[NAME_START:NAME_END])
    if (
        checksum is None
        or b"%08x" % checksum(checksum(0, head[:CRC_START]), bytes(frame[CRC_END:])) != head[CRC_START:CRC_END]
    ):
        raise CorruptRecord("the record does not match its checksum")
    return _read_fields(head, bytes(frame[PAYLOAD_START:-1]))


def _read_fields(head: bytes, payload: bytes) -> Record:
    """The fields of a head whose checksum is right. Still checked: a peer may have made it wrong, not damage."""
    if not head.startswith(HEAD, PREFIX_SIZE) or _fixed(head) != _FIXED:
        raise CorruptRecord("the record is not laid out as a record")
    try:
        offset = int(head[OFFSET_START:OFFSET_END])
        timestamp_ms = int(head[TIMESTAMP_START:TIMESTAMP_END])
        sequence = int(head[SEQUENCE_START:SEQUENCE_END])
        producer = head[PRODUCER_START:PRODUCER_END].decode("ascii")
    except ValueError as error:
        raise CorruptRecord(f"the record's head has a bad field: {error}") from None
    return Record(offset, timestamp_ms, "" if producer == NO_PRODUCER else producer, sequence, payload)
