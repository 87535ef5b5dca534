from __future__ import annotations

import json
import random

import msgspec
import pytest

from broker.errors import BrokerError, for_code
from broker.log.record import MAX_SEQUENCE
from broker.protocol import messages
from broker.protocol.frames import FrameReader, frame
from broker.protocol.messages import decode_request


def test_a_request_is_decoded_and_its_payload_left_as_it_came() -> None:
    request = decode_request(b'{"type":"publish","message_id":"m1","payload":{"b" : [1.50, "\\u00e9"]},"other":{}}')
    assert request.type == "publish"
    assert bytes(request.payload) == b'{"b" : [1.50, "\\u00e9"]}'
    assert bytes(request.message_id) == b'"m1"'


@pytest.mark.parametrize(
    "payload",
    [
        b"1e308",
        b"-1.5E+10",
        b"99999999999999999999999999",
        b'"1e999"',
        b'"GPU-5e123456-1e999-9e9999"',
        b'{"1e999":"E+9999"}',
        b"1e-999",
        b"1e0001",
        b"null",
        b'"\xc3\xa9"',
        b"0." + b"1" * 400,
        b'"' + b"7" * 5000 + b'"',
    ],
)
def test_any_json_that_readers_can_read_is_taken(payload: bytes) -> None:
    body = b'{"type":"publish","payload":%b}' % payload
    assert bytes(decode_request(body).payload) == payload
    json.loads(payload)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"[1]",
        b'"text"',
        b"null",
        b"{",
        b'{"type":"publish","payload":}',
        b'{"type":"publish","payload":1}{}',
        b'{"type":"publish","payload":"\xff"}',
        b'{"type":"publish","payload":1,"unknown":"\xc3"}',
        b'{"type":"publish","payload":NaN}',
        b'{"type":"publish","payload":Infinity}',
        b'{"type":"publish","payload":1e999}',
        b'{"type":"publish","payload":[1, -1E+400 ]}',
        b'{"type":"publish","payload":{"a":99999e305}}',
        b'{"type":"publish","payload":' + b"9" * 250 + b"e99}",
        b'{"type":"publish","payload":' + b"9" * 301 + b"e9}",
        b'{"type":"publish","payload":[' + b"9" * 310 + b".5]}",
        b'{"type":"publish","payload":' + b"9" * 5000 + b"}",
        b'{"type":"publish","payload":"\\ud800"}',
        b'{"type":"publish","payload":"a\x00b"}',
        b'{"type":"publish","payload":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"type":"publish","payload":' + b'{"a":' * 100_000,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_no_reader_can_read_is_a_bad_frame(body: bytes) -> None:
    with pytest.raises(BrokerError) as raised:
        decode_request(body)
    assert raised.value.code == "bad_frame"
    assert "\n" not in str(raised.value)


PRODUCER = "00000000000000aa"
HEAD = messages.publish_head(PRODUCER, 7)


def quick(body: bytes, producer: str = PRODUCER, sequence: int = 7, most: int = 1 << 20) -> bytes | None:
    """As the connection asks: the frame lies somewhere in what came."""
    found = messages.quick_payloads([(b'{"' + body + b"7}", 2, 2 + len(body))], producer, sequence, most)
    return found[0] if found else None


@pytest.mark.parametrize(
    "payload", [b'{"b" : [1.50, "\\u00e9"]}', '"é"'.encode(), b"1e308", b"null ", b'"1e999"', b"[" * 900 + b"]" * 900]
)
def test_a_publish_as_it_is_expected_is_known_at_once(payload: bytes) -> None:
    assert quick(messages.publish_frame(payload, PRODUCER, 7)[4:]) == payload
    assert quick(messages.publish_frame(payload, "", 0)[4:], "", 0) == payload
    assert quick(messages.publish_frame(payload, PRODUCER, 7)[4:], most=len(payload)) == payload
    assert quick(messages.publish_frame(payload, PRODUCER, 7)[4:], most=len(payload) - 1) is None
    json.loads(payload)


@pytest.mark.parametrize(
    "body",
    [
        HEAD.replace(b"7", b"8") + b"1}",
        HEAD.replace(b"7", b"07") + b"1}",
        HEAD.replace(b"a", b"b") + b"1}",
        HEAD + b'1,"payload":2}',
        HEAD + b'1},{"a":2}',
        HEAD + b"}",
        HEAD,
        HEAD[:-1],
        HEAD + b"1} ",
        HEAD + b"1",
        HEAD + b"1e999}",
        HEAD + b"9" * 400 + b"}",
        HEAD + b'"\xff"}',
        HEAD + b"\xef\xbb\xbf1}",
        HEAD + b"[" * 2000 + b"]" * 2000 + b"}",
        HEAD + b'"' + b"x" * (1 << 18) + b'"}',
        b'{"type":"publish", "payload":1}',
        b'{"type":"ping"}',
        b"",
    ],
)
def test_what_is_not_as_expected_or_doubtful_gets_a_closer_look(body: bytes) -> None:
    assert quick(body) is None


@pytest.mark.parametrize("first", [0, 7, 999, 123_456, MAX_SEQUENCE - 1])
def test_publishes_in_a_row_are_known_until_one_is_not_as_expected(first: int) -> None:
    def found(producer: str, sequences: list[int]) -> list[bytes]:
        bodies = [messages.publish_frame(b"[%d]" % one, producer, one)[4:] for one in sequences]
        return messages.quick_payloads([(body, 0, len(body)) for body in bodies], producer, first, 1000)

    in_row = list(range(first, min(first + 1200, MAX_SEQUENCE + 1)))
    assert found(PRODUCER, in_row) == [b"[%d]" % one for one in in_row]
    assert found(PRODUCER, [*in_row, MAX_SEQUENCE + 1, first]) == [b"[%d]" % one for one in in_row]
    assert found(PRODUCER, [first, first, first + 1]) == [b"[%d]" % first]
    assert found(PRODUCER, [first + 1, first]) == []
    assert len(found("", [1, 1, 5])) == 3
    assert found(PRODUCER, []) == []


def test_without_simdjson_every_frame_gets_the_closer_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "_parser", None)
    assert quick(HEAD + b"1}") is None
    assert decode_request(HEAD + b"1}").payload == msgspec.Raw(b"1")
    for payload in (b"1e400", b'"\xff"'):
        with pytest.raises(BrokerError, match="not a frame"):
            decode_request(HEAD + payload + b"}")


def test_mutated_frames_raise_only_bad_frame_and_what_passes_can_be_read() -> None:
    rng = random.Random(20250718)
    seeds = [
        HEAD + b'{"v":[1.5e3,-2,"\xc3\xa9",null]}}',
        b'{"type":"publish","payload":[1.5e3,{"a":true}]}',
        b'{"type":"publish","message_id":"m","producer":"00000000000000aa","sequence":7,"payload":{"v":[1.5e3,-2,"\xc3\xa9",null]}}',
        b'{"type":"subscribe","subscriber_id":"c1","offset":-2}',
        b'{"type":"ack","message_id":"00000000000000aa:000000000007","offset":12}',
        b'{"type":"publish","payload":' + b"[" * 30 + b"1e30" + b"]" * 30 + b"}",
    ]
    alphabet = b'{}[]",:\\ue+-.0129eEtfn\xff\xc3\x80\x00 \n'
    passed, quickly, codes = 0, 0, set()
    for _ in range(30_000):
        body = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(body))
            match rng.randrange(4):
                case 0:
                    body[place] = rng.choice(alphabet)
                case 1:
                    body.insert(place, rng.choice(alphabet))
                case 2:
                    del body[place]
                case _:
                    body[place:place] = body[place : place + rng.randint(1, 20)]
        found = {fields: quick(bytes(body), *fields) for fields in ((PRODUCER, 7), ("", 0))}
        try:
            request = decode_request(bytes(body))
        except BrokerError as error:
            codes.add(error.code)
            assert set(found.values()) == {None}
            continue
        for fields, payload in found.items():
            if payload is not None:
                quickly += 1
                assert request.type == "publish"
                assert (request.producer or "", request.sequence or 0) == fields
                assert bytes(request.payload) == payload.strip()
        passed += 1
        if bytes(request.payload):
            json.loads(bytes(request.payload))
    assert passed > 1000
    assert quickly > 100
    assert codes == {"bad_frame"}


# answers


def test_a_publish_is_answered_with_its_own_mark_and_the_offset() -> None:
    assert messages.publish_responses(5, 1, [b'"m1"']) == frame(
        b'{"type":"response","success":true,"message_id":"m1","offset":5}'
    )
    assert messages.publish_responses(5, 1, duplicate=True) == frame(
        b'{"type":"response","success":true,"offset":5,"duplicate":true}'
    )


@pytest.mark.parametrize("first", [0, 5, 99, 10**12 - 2, 10**16 - 1200])
def test_publishes_in_a_row_are_answered_each_with_its_own_offset(first: int) -> None:
    answers = FrameReader(1000).feed(messages.publish_responses(first, 1200))
    assert answers == [b'{"type":"response","success":true,"offset":%d}' % one for one in range(first, first + 1200)]


@pytest.mark.parametrize(
    ("built", "body"),
    [
        (messages.response(), b'{"type":"response","success":true}'),
        (messages.response(b"7", offset=3), b'{"type":"response","success":true,"message_id":7,"offset":3}'),
        (messages.gap_frame(3, 9, "corrupt"), b'{"type":"gap","from":3,"to":9,"reason":"corrupt"}'),
        (
            messages.error_frame(for_code("bad_request", 'no "x"'), b'"m"'),
            b'{"type":"error","error":"no \\"x\\"","code":"bad_request","message_id":"m"}',
        ),
        (
            messages.welcome_frame(2, 9, 1024, "always", "feed"),
            b'{"type":"welcome","oldest":2,"next":9,"max_frame":1024,"fsync":"always","log":"feed"}',
        ),
        (messages.publish_frame(b"[1]", "", 0), b'{"type":"publish","payload":[1]}'),
        (
            messages.publish_frame(b"[1]", "00000000000000aa", 7),
            b'{"type":"publish","producer":"00000000000000aa","sequence":7,"payload":[1]}',
        ),
        (messages.request_frame("ack", offset=4, token=None), b'{"type":"ack","offset":4}'),
        (messages.PING, b'{"type":"ping"}'),
    ],
)
def test_frames_are_built_to_the_byte(built: bytes, body: bytes) -> None:
    assert built == len(body).to_bytes(4, "big") + body
