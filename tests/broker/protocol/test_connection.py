from __future__ import annotations

import json
import random
from typing import Any

import pytest

from broker.errors import BrokerError
from broker.log.record import MAX_SEQUENCE, key_of
from broker.protocol import connection as connection_module
from broker.protocol import messages
from broker.protocol.connection import (
    MOST_EVENTS,
    MOST_FRAMES,
    MOST_IN_ROW,
    Ack,
    ConnectionLimits,
    Event,
    GetStats,
    Hello,
    Nack,
    Ping,
    Publish,
    RefusedRequest,
    ServerConnection,
    Subscribe,
    Unsubscribe,
)
from broker.protocol.frames import FrameReader, frame

LIMITS = ConnectionLimits(max_frame=4096)
GUARDED = ConnectionLimits(max_frame=1 << 16, token="sesame")  # nosec


def request(**fields: object) -> bytes:
    return frame(json.dumps(fields).encode())


def one(data: bytes, limits: ConnectionLimits = LIMITS) -> Event:
    (event,) = ServerConnection(limits, 0.0).receive_data(data, 0.0)
    return event


def refusal(data: bytes, limits: ConnectionLimits = LIMITS) -> RefusedRequest:
    event = one(data, limits)
    assert isinstance(event, RefusedRequest)
    return event


def sent(connection: ServerConnection) -> list[Any]:
    return [json.loads(body) for body in FrameReader(1 << 20).feed(connection.data_to_send())]


def publishes(events: list[Event]) -> list[tuple[str, int, bytes]]:
    """Producer, sequence and payload of each publish; without a producer the sequence counts for nothing."""
    return [
        (event.producer, sequence if event.producer else 0, payload)
        for event in events
        if isinstance(event, Publish)
        for sequence, payload in enumerate(event.payloads, event.sequence)
    ]


CONVERSATION = b"".join(
    [
        request(type="hello", client="c"),
        request(type="publish", message_id="m1", payload={"a": 1}),
        request(type="publish", producer="00000000000000aa", sequence=7, payload=[2], later="ignored"),
        request(type="subscribe", subscriber_id="c1"),
        request(type="subscribe", subscriber_id="c1", offset=-2, message_id=4),
        request(type="ack", message_id="m"),
        request(type="ack", offset=3),
        request(type="nack", offset=0, message_id="n"),
        request(type="unsubscribe"),
        request(type="ping"),
        request(type="pong"),
        request(type="get_stats", message_id="s"),
    ]
)
EVENTS: list[Event] = [
    Hello("c"),
    Publish([b'{"a": 1}'], marks=[b'"m1"']),
    Publish([b"[2]"], key_of("00000000000000aa"), 7),
    Subscribe("c1", None, b""),
    Subscribe("c1", -2, b"4"),
    Ack(None, b'"m"'),
    Ack(3, b""),
    Nack(0, b'"n"'),
    Unsubscribe(b""),
    Ping(b""),
    GetStats(b'"s"'),
]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 17, 64, 10_000])
def test_requests_become_events_however_the_bytes_are_cut(size: int) -> None:
    connection = ServerConnection(LIMITS, 0.0)
    events: list[Event] = []
    for start in range(0, len(CONVERSATION), size):
        events += connection.receive_data(CONVERSATION[start : start + size], 0.0)
    assert events == EVENTS


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (request(type="dance"), "unknown_type", "'dance'"),
        (request(kind="publish"), "unknown_type", "NoneType"),
        (request(type={"a": 1}), "unknown_type", "dict"),
        (request(type="pong"), "unknown_type", "'pong'"),
        (request(type="publish"), "bad_request", "payload"),
        (request(type="publish", payload=1, producer="xyz", sequence=1), "bad_request", "16"),
        (request(type="publish", payload=1, producer="0" * 16, sequence=1), "bad_request", "16"),
        (request(type="publish", payload=1, producer=5, sequence=1), "bad_request", "producer"),
        (request(type="publish", payload=1, producer="00000000000000aa"), "bad_request", "sequence"),
        (request(type="publish", payload=1, producer="00000000000000aa", sequence=-1), "bad_request", "sequence"),
        (request(type="publish", payload=1, producer="00000000000000aa", sequence=10**12), "bad_request", "sequence"),
        (request(type="publish", payload=1, producer="00000000000000aa", sequence=True), "bad_request", "sequence"),
        (request(type="publish", payload="x" * 4050), "too_large", "payload"),
        (request(type="publish", payload=1, message_id="m" * 1100), "bad_request", "message_id"),
        (request(type="subscribe"), "bad_request", "subscriber_id"),
        (request(type="subscribe", subscriber_id=""), "bad_request", "subscriber_id"),
        (request(type="subscribe", subscriber_id="a\nb"), "bad_request", "subscriber_id"),
        (request(type="subscribe", subscriber_id="x" * 129), "bad_request", "subscriber_id"),
        (request(type="subscribe", subscriber_id="c", offset=-3), "bad_request", "offset"),
        (request(type="subscribe", subscriber_id="c", offset="0"), "bad_request", "offset"),
        (request(type="ack", offset=-1), "bad_request", "offset"),
        (request(type="ack", offset=1.5), "bad_request", "offset"),
        (request(type="nack", offset=10**17), "bad_request", "offset"),
        (frame(b"not json"), "bad_frame", "not a frame"),
    ],
)
def test_a_bad_request_is_refused_and_the_connection_goes_on(data: bytes, code: str, words: str) -> None:
    connection = ServerConnection(LIMITS, 0.0)
    refused, ping = connection.receive_data(data + request(type="ping"), 0.0)
    assert isinstance(refused, RefusedRequest)
    assert (refused.error.code, refused.fatal) == (code, False)
    assert words in str(refused.error)
    assert ping == Ping(b"")


def test_a_refusal_carries_the_message_id() -> None:
    assert refusal(request(type="dance", message_id="m9")).mark == b'"m9"'


@pytest.mark.parametrize("length", [0, 4097, 2**31, 2**32 - 1])
def test_a_bad_length_ends_the_connection(length: int) -> None:
    connection = ServerConnection(LIMITS, 0.0)
    events = connection.receive_data(request(type="ping") + length.to_bytes(4, "big") + request(type="ping"), 0.0)
    assert events[0] == Ping(b"")
    assert isinstance(events[1], RefusedRequest)
    assert events[1].fatal
    assert connection.closing
    assert connection.receive_data(request(type="ping"), 0.0) == []


def test_a_payload_whose_record_just_fits_is_taken() -> None:
    payload = json.dumps("x" * (LIMITS.max_payload - 2))
    body = b'{"type":"publish","payload":%b}' % payload.encode()
    event = one(frame(body))
    assert isinstance(event, Publish)
    assert [len(payload) for payload in event.payloads] == [LIMITS.max_payload]


# the order of answers


def answer_all_but_publishes(connection: ServerConnection, events: list[Event]) -> None:
    for event in events:
        if isinstance(event, Publish):
            connection.take_publishes(len(event.payloads))
        else:
            connection.respond(messages.response(b'"%b"' % type(event).__name__.encode()))


def marks(connection: ServerConnection) -> list[object]:
    return [answer.get("offset", answer.get("message_id")) for answer in sent(connection)]


def test_answers_leave_in_the_order_of_the_requests() -> None:
    connection = ServerConnection(LIMITS, 0.0)
    publish = request(type="publish", payload=1)
    data = request(type="get_stats") + publish + publish + request(type="ack") + publish + request(type="ping")
    answer_all_but_publishes(connection, connection.receive_data(data, 0.0))
    assert marks(connection) == ["GetStats"]
    for offset, count in ((0, 2), (2, 1)):
        assert not connection.all_answered
        connection.answer_publishes(messages.publish_responses(offset, count), count)
    assert marks(connection) == [0, 1, "Ack", 2, "Ping"]
    assert connection.all_answered


def test_an_answer_waits_only_for_the_publishes_before_it() -> None:
    connection = ServerConnection(LIMITS, 0.0)
    data = request(type="publish", payload=1) + request(type="ping") + request(type="publish", payload=1)
    answer_all_but_publishes(connection, connection.receive_data(data + request(type="ack"), 0.0))
    connection.answer_publishes(messages.publish_responses(0, 1), 1)
    assert marks(connection) == [0, "Ping"]
    connection.answer_publishes(messages.publish_responses(1, 1), 1)
    assert marks(connection) == [1, "Ack"]


def test_all_answers_of_a_moment_are_one_piece() -> None:
    connection = ServerConnection(LIMITS, 0.0)
    for mark in (b"1", b"2"):
        connection.respond(messages.response(mark))
    assert connection.data_to_send() == messages.response(b"1") + messages.response(b"2")
    assert connection.data_to_send() == b""


# the token


def test_with_a_token_hello_comes_first() -> None:
    event = refusal(request(type="ping", message_id="m"), GUARDED)
    assert (event.error.code, event.fatal, event.mark) == ("unauthorized", True, b'"m"')


@pytest.mark.parametrize("token", ["wrong", "", None, 5, "sésame", "sesame "])
def test_a_wrong_token_ends_the_connection(token: object) -> None:
    event = refusal(request(type="hello", token=token), GUARDED)
    assert (event.error.code, event.fatal) == ("unauthorized", True)


def test_the_right_token_opens_everything_even_in_one_piece() -> None:
    connection = ServerConnection(GUARDED, 0.0)
    big = request(type="publish", payload="x" * 10_000)
    events = connection.receive_data(request(type="hello", token="sesame") + big, 0.0)
    assert [type(event) for event in events] == [Hello, Publish]


def test_little_is_kept_of_a_stranger() -> None:
    connection = ServerConnection(GUARDED, 0.0)
    assert connection.receive_data((60_000).to_bytes(4, "big") + b"x" * 4000, 0.0) == []
    (event,) = connection.receive_data(b"x" * 200, 0.0)
    assert isinstance(event, RefusedRequest)
    assert (event.error.code, event.fatal) == ("too_large", True)


def test_a_stranger_s_garbage_is_fatal() -> None:
    assert refusal(frame(b"garbage"), GUARDED).fatal


def test_a_stranger_has_five_seconds() -> None:
    connection = ServerConnection(GUARDED, 100.0)
    assert connection.check_time(104.9)
    assert sent(connection) == []
    assert connection.check_time(105.0)
    assert connection.closing
    (error,) = sent(connection)
    assert error["code"] == "unauthorized"


# time


def test_a_frame_must_be_complete_within_thirty_seconds_however_often_a_byte_comes() -> None:
    connection = ServerConnection(LIMITS, 0.0)
    data = request(type="ping", message_id="x" * 100)
    for second in range(30):
        connection.receive_data(data[second : second + 1], float(second))
        connection.check_time(float(second))
        assert not connection.closing
    connection.check_time(30.0)
    assert connection.closing
    (error,) = sent(connection)
    assert error["code"] == "bad_frame"


def test_each_frame_has_thirty_seconds_of_its_own() -> None:
    connection = ServerConnection(LIMITS, 0.0)
    data = request(type="ping")
    for second in range(0, 300, 20):
        connection.receive_data(data[10:] + data[:10] if second else data[:10], float(second))
        connection.check_time(second + 19.0)
    assert not connection.closing


def test_time_in_which_the_broker_did_not_read_does_not_count() -> None:
    connection = ServerConnection(LIMITS, 0.0)
    connection.receive_data(request(type="ping")[:10], 0.0)
    connection.reading_resumed(29.0)
    connection.check_time(58.0)
    assert not connection.closing


def test_who_said_hello_is_pinged_when_idle_and_dead_after_forty_five_seconds() -> None:
    connection = ServerConnection(LIMITS, 0.0)
    connection.receive_data(request(type="hello"), 0.0)
    assert connection.check_time(14.9)
    assert sent(connection) == []
    assert connection.check_time(15.0)
    assert sent(connection) == [{"type": "ping"}]
    assert connection.check_time(29.0)
    assert sent(connection) == []
    assert connection.check_time(30.0)
    assert sent(connection) == [{"type": "ping"}]
    assert not connection.check_time(45.0)


def test_a_pong_keeps_a_peer_alive() -> None:
    connection = ServerConnection(LIMITS, 0.0)
    connection.receive_data(request(type="hello"), 0.0)
    for second in range(15, 300, 15):
        assert connection.check_time(float(second))
        assert connection.receive_data(request(type="pong"), float(second)) == []


def test_a_plain_client_is_never_pinged_nor_dead() -> None:
    connection = ServerConnection(LIMITS, 0.0)
    connection.receive_data(request(type="ping"), 0.0)
    assert connection.check_time(100_000.0)
    assert sent(connection) == []


def test_unfinished_bytes_are_told() -> None:
    connection = ServerConnection(LIMITS, 0.0)
    connection.receive_data(request(type="ping")[:10], 0.0)
    assert connection.partial_bytes == 10


def test_mutated_conversations_raise_nothing() -> None:
    rng = random.Random(42)
    kinds: dict[type, int] = {}
    for _ in range(4000):
        data = bytearray(CONVERSATION)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        connection = ServerConnection(rng.choice([LIMITS, GUARDED]), 0.0)
        stream = bytes(data)
        while stream:
            size = rng.randint(1, 200)
            for event in connection.receive_data(stream[:size], 0.0):
                kinds[type(event)] = kinds.get(type(event), 0) + 1
                if isinstance(event, RefusedRequest):
                    assert isinstance(event.error, BrokerError)
                    connection.refuse(event.error, event.mark, fatal=event.fatal)
            stream = stream[size:]
        connection.check_time(1000.0)
        sent(connection)
    assert kinds[RefusedRequest] > 1000
    assert kinds[Publish] > 1000


def test_the_last_sequence_of_all_is_taken_and_none_is_expected_after_it() -> None:
    connection = ServerConnection(LIMITS, 0.0)
    frames = [messages.publish_frame(b"1", "00000000000000aa", MAX_SEQUENCE + step) for step in (-2, -1, 0, 1)]
    *taken, refused = connection.receive_data(b"".join(frames), 0.0)
    assert [sequence for _, sequence, _ in publishes(taken)] == [MAX_SEQUENCE - 2, MAX_SEQUENCE - 1, MAX_SEQUENCE]
    assert isinstance(refused, RefusedRequest)
    assert "sequence must be a whole number" in str(refused.error)


@pytest.mark.parametrize("producer", ["", "00000000000000aa"])
def test_what_follows_a_publish_may_have_any_layout(producer: str) -> None:
    connection = ServerConnection(LIMITS, 0.0)
    heads = [
        messages.publish_head("", 0),
        *(messages.publish_head("00000000000000aa", number) for number in (1, 2, 2, 9, 10)),
    ]
    bodies = [
        messages.publish_frame(b"0", producer, 0)[4:],
        *(head + b"[%d]}" % number for number, head in enumerate(heads)),
    ]
    bodies.insert(3, b'{"payload":"in between","type":"publish"}')
    events = connection.receive_data(b"".join(frame(body) for body in bodies), 0.0)
    assert publishes(events) == [
        (producer and key_of(producer), 0, b"0"),
        ("", 0, b"[0]"),
        (key_of("00000000000000aa"), 1, b"[1]"),
        ("", 0, b'"in between"'),
        (key_of("00000000000000aa"), 2, b"[2]"),
        (key_of("00000000000000aa"), 2, b"[3]"),
        (key_of("00000000000000aa"), 9, b"[4]"),
        (key_of("00000000000000aa"), 10, b"[5]"),
    ]


@pytest.mark.parametrize("layout", ["ours", "another"])
@pytest.mark.parametrize("producer", ["", "00000000000000aa"])
def test_publishes_in_a_row_are_one_event(producer: str, layout: str) -> None:
    def publish(sequence: int, **more: object) -> bytes:
        if layout == "ours" and not more:
            return messages.publish_frame(b"[1]", producer, sequence)
        fields = {"producer": producer, "sequence": sequence} if producer else {}
        return request(payload=[1], type="publish", **fields, **more)

    count = MOST_IN_ROW + 10
    stream = [publish(number) for number in range(count)]
    stream.insert(MOST_IN_ROW + 5, request(type="ping"))
    stream += [publish(count + number, message_id=number) for number in range(3)]
    stream += [publish(count + 3)]
    # The first of all is nowhere expected; where none has our layout, none is.
    alone = [1] if layout == "ours" else []
    events = ServerConnection(LIMITS, 0.0).receive_data(b"".join(stream), 0.0)
    assert [len(event.payloads) for event in events if isinstance(event, Publish)] == [
        *alone,
        MOST_IN_ROW,
        5 - len(alone),
        5,
        3,
        1,
    ]
    assert [event.marks for event in events if isinstance(event, Publish)][-2:] == [[b"0", b"1", b"2"], []]
    assert [sequence for _, sequence, _ in publishes(events)] == [
        number if producer else 0 for number in range(count + 4)
    ]


def events_of(connection: ServerConnection, data: bytes) -> list[list[Event]]:
    """All that is received at once, as it is handed out."""
    turns = [connection.receive_data(data, 0.0)]
    while connection.has_more:
        turns.append(connection.next_events())
    return turns


def test_very_many_requests_come_some_at_a_time_and_in_order() -> None:
    connection = ServerConnection(LIMITS, 0.0)
    count = 2 * MOST_EVENTS + 10
    stream = b"".join(request(type="ping", message_id=number) for number in range(count))
    turns = events_of(connection, stream + (1 << 30).to_bytes(4, "big"))
    assert [len(events) for events in turns] == [MOST_EVENTS, MOST_EVENTS, 11]
    events = [event for events in turns for event in events]
    assert events[:-1] == [Ping(b"%d" % number) for number in range(count)]
    assert isinstance(events[-1], RefusedRequest)
    assert (events[-1].error.code, events[-1].fatal) == ("too_large", True)
    assert connection.receive_data(request(type="ping"), 0.0) == connection.next_events() == []


def test_of_very_many_frames_some_are_looked_at_at_a_time() -> None:
    connection = ServerConnection(LIMITS, 0.0)
    hello = request(type="hello")
    connection.receive_data(hello, 0.0)
    # Nothing comes of them: how many are looked at shows in what is left of them.
    pong, count = request(type="pong"), 5 * MOST_FRAMES
    assert connection.receive_data(pong * count + request(type="ping", message_id=1) + hello[:9], 1.0) == []
    assert connection.partial_bytes == (count - MOST_FRAMES) * len(pong) + len(request(type="ping", message_id=1)) + 9
    turns = 1
    events: list[Event] = []
    while connection.has_more:
        events += connection.next_events()
        turns += 1
    assert (turns, events) == (6, [Ping(b"1")])
    assert connection.partial_bytes == 9
    # The rest of the last frame is due from the moment it came.
    assert connection.check_time(1.0 + LIMITS.partial_frame_s - 0.1)
    assert not connection.closing
    connection.check_time(1.0 + LIMITS.partial_frame_s)
    assert connection.closing


def test_what_comes_while_others_wait_comes_after_them() -> None:
    connection = ServerConnection(LIMITS, 0.0)
    first = b"".join(request(type="ping", message_id=number) for number in range(MOST_EVENTS + 5))
    events = connection.receive_data(first, 0.0)
    events += connection.receive_data(request(type="ping", message_id="last"), 0.0)
    assert events == [*(Ping(b"%d" % number) for number in range(MOST_EVENTS + 5)), Ping(b'"last"')]
    assert not connection.has_more


def told(events: list[Event]) -> list[object]:
    """The events, publishes one by one and refusals by their code."""
    return [
        one
        for event in events
        for one in (
            publishes([event])
            if isinstance(event, Publish)
            else [("refused", event.error.code, event.fatal)]
            if isinstance(event, RefusedRequest)
            else [event]
        )
    ]


@pytest.mark.parametrize("seed", range(20))
def test_how_much_is_handed_out_at_a_time_changes_nothing_else(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    producer, sequence, frames = "00000000000000aa", 0, []
    for number in range(400):
        kind = rng.random()
        if kind < 0.6:
            sequence += rng.choice((0, 1, 1, 1, 1, 3))
            frames.append(messages.publish_frame(b"%d" % number * rng.randint(1, 40), producer, sequence))
        elif kind < 0.9:
            frames.append(request(type="ping", message_id=number))
        else:
            frames.append(frame(rng.choice((b"{}", b"x", b'{"type":"publish","payload":1e999}'))))
    stream = b"".join(frames) + rng.choice((b"", b"\0\0\0\0", b"\0\0\1\0{"))
    whole = ServerConnection(LIMITS, 0.0)
    expected = told([event for events in events_of(whole, stream) for event in events])

    monkeypatch.setattr(connection_module, "MOST_FRAMES", rng.randint(1, 9))
    monkeypatch.setattr(connection_module, "MOST_EVENTS", rng.randint(1, 9))
    connection = ServerConnection(LIMITS, 0.0)
    events: list[Event] = []
    while stream:
        size = rng.choice((1, 3, 50, 500, 5000))
        events += connection.receive_data(stream[:size], 0.0)
        stream = stream[size:]
        # What comes although the broker asked for a pause counts, too.
        while connection.has_more and rng.random() < 0.8:
            events += connection.next_events()
    while connection.has_more:
        events += connection.next_events()
    assert told(events) == expected
    assert connection.partial_bytes == whole.partial_bytes
    assert connection.closing == whole.closing


def test_after_a_fatal_request_nothing_is_handed_out() -> None:
    connection = ServerConnection(GUARDED, 0.0)
    turns = events_of(connection, request(type="ping") * 3 * MOST_EVENTS)
    assert [len(events) for events in turns] == [1]
    assert connection.next_events() == []
