from __future__ import annotations

import json

import google_crc32c
import pytest

from broker.errors import CorruptRecord
from broker.log.batch import Entries, build_batch
from broker.log.dedup import ProducerStates
from broker.log.record import (
    MAX_PAYLOAD,
    MAX_SEQUENCE,
    OVERHEAD,
    PAYLOAD_START,
    Record,
    append_records,
    decode_record,
    encode_record,
)
from broker.log.scan import good_records

PRODUCER = "00112233aabbccdd"


def test_the_bytes_of_a_record_are_pinned() -> None:
    frame = encode_record(7, 1700000000123, PRODUCER, 42, b'{"a":1}')
    assert google_crc32c.implementation == "c", "google-crc32c has no fast build here"
    assert frame == (
        b'\x00\x00\x00\x96{"type":"message","c32":"%08x","offset":               7,"timestamp":1700000000123,'
        b'"message_id":"00112233aabbccdd:000000000042","payload":{"a":1}}'
    ) % google_crc32c.value(frame[:29] + frame[37:])


def test_a_record_with_another_checksum_is_refused() -> None:
    frame = (
        b'\x00\x00\x00\x96{"type":"message","crc":"a5277456","offset":               7,"timestamp":1700000000123,'
        b'"message_id":"00112233aabbccdd:000000000042","payload":{"a":1}}'
    )
    with pytest.raises(CorruptRecord):
        decode_record(frame)
    assert good_records(frame, 7, 100) == (0, 7)


def test_a_record_is_one_json_object_with_its_length_before_it() -> None:
    frame = encode_record(12, 1700000000123, PRODUCER, 3, '{"name":"é"}'.encode())
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert len(frame) == OVERHEAD + len('{"name":"é"}'.encode())
    told = json.loads(frame[4:])
    assert told.pop("c32") == f"{google_crc32c.value(frame[:29] + frame[37:]):08x}"
    assert told == {
        "type": "message",
        "offset": 12,
        "timestamp": 1700000000123,
        "message_id": "00112233aabbccdd:000000000003",
        "payload": {"name": "é"},
    }


@pytest.mark.parametrize(
    "record",
    [
        Record(0, 0, "", 0, b"1"),
        Record(5, 1700000000123, PRODUCER, 0, b'"text"'),
        Record(10**16 - 1, 10**13 - 1, "ffffffffffffffff", MAX_SEQUENCE, b"[" + b"1," * 5000 + b"1]"),
    ],
)
@pytest.mark.parametrize("view", [bytes, memoryview])
def test_a_record_comes_back_as_it_was(record: Record, view: type[bytes] | type[memoryview]) -> None:
    assert decode_record(view(encode_record(*record))) == record


def test_without_a_producer_the_id_is_made_of_the_offset() -> None:
    record = decode_record(encode_record(7, 1, "", 99, b"{}"))
    assert record == Record(7, 1, "", 7, b"{}")
    assert record.message_id == "0000000000000000:000000000007"
    assert json.loads(encode_record(7, 1, "", 99, b"{}")[4:])["message_id"] == record.message_id
    assert decode_record(encode_record(1, 1, PRODUCER, 5, b"{}")).message_id == f"{PRODUCER}:000000000005"


@pytest.mark.parametrize("size", [1, 400, 4096, 4097])
@pytest.mark.parametrize(
    ("offset", "sequence"),
    [(0, 0), (7, 998), (998, 7), (999, 999), (1000, 12_345), (10**12 - 1, 0), (10**16 - 2500, 10**12 - 2500)],
)
def test_records_in_a_row_are_those_that_each_would_be_alone(offset: int, sequence: int, size: int) -> None:
    parts: list[bytes] = []
    payloads = [b"7" * (size + number % 2) for number in range(2500)]
    append_records(parts, 123, b"00000000000000aa", offset, sequence, payloads)
    data, position = b"".join(parts), 0
    for number, payload in enumerate(payloads):
        frame = data[position : position + OVERHEAD + len(payload)]
        assert decode_record(frame) == Record(offset + number, 123, "00000000000000aa", sequence + number, payload)
        position += len(frame)
    assert position == len(data)


def test_the_id_without_a_producer_begins_again_after_the_highest() -> None:
    group = build_batch([Entries([b"1", b"2"])], MAX_SEQUENCE, 123, ProducerStates())
    assert [b'"%b:%012d"' % (b"0" * 16, one) in group.blocks[0].data for one in (MAX_SEQUENCE, 0)] == [True, True]


def test_every_flipped_bit_is_noticed() -> None:
    frame = encode_record(3, 1700000000123, PRODUCER, 9, b'{"crc":"abcdef"}')
    for position in range(len(frame)):
        for bit in range(8):
            changed = bytearray(frame)
            changed[position] ^= 1 << bit
            with pytest.raises(CorruptRecord):
                decode_record(bytes(changed))


def test_every_cut_is_noticed() -> None:
    frame = encode_record(3, 1700000000123, PRODUCER, 9, b"{}")
    for size in range(len(frame)):
        with pytest.raises(CorruptRecord):
            decode_record(frame[:size])
    with pytest.raises(CorruptRecord):
        decode_record(frame + b"}")


def _with_right_crc(frame: bytes) -> bytes:
    return frame[:29] + b"%08x" % google_crc32c.value(frame[:29] + frame[37:]) + frame[37:]


@pytest.mark.parametrize(
    ("start", "text"), [(4, b"["), (50, b"x"), (64, b";"), (80, b"-"), (106, b"\xff"), (130, b"z"), (140, b"_")]
)
def test_a_wrong_layout_is_refused_even_with_a_right_checksum(start: int, text: bytes) -> None:
    frame = encode_record(3, 1700000000123, PRODUCER, 9, b"{}")
    with pytest.raises(CorruptRecord):
        decode_record(_with_right_crc(frame[:start] + text + frame[start + len(text) :]))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ((0, 0, "0011", 0, b"1"), "producer '0011'"),
        ((0, 0, "00112233AABBCCDD", 0, b"1"), "lower-case"),
        ((0, 0, "0" * 16, 0, b"1"), "not all zero"),
        ((0, 0, PRODUCER, -1, b"1"), "sequence -1"),
        ((0, 0, PRODUCER, MAX_SEQUENCE + 1, b"1"), "sequence 1000000000000"),
        ((-1, 0, "", 0, b"1"), "offset -1"),
        ((0, 10**13, "", 0, b"1"), "timestamp"),
        ((0, 0, "", 0, b""), "payload of 0 bytes"),
    ],
)
def test_a_field_that_does_not_fit_is_refused(fields: tuple[int, int, str, int, bytes], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        encode_record(*fields)


def test_a_payload_over_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="payload of"):
        encode_record(0, 0, "", 0, b"1" * (MAX_PAYLOAD + 1))


def test_the_longest_length_starts_with_a_byte_that_json_cannot_hold() -> None:
    assert (MAX_PAYLOAD + OVERHEAD).to_bytes(4, "big")[0] < 0x09
    assert PAYLOAD_START + 1 == OVERHEAD
