from __future__ import annotations

import asyncio
import json
import socket
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from broker.client.client import BrokerClient, Gap, Message
from broker.errors import BrokerError, SubscriberInUse
from broker.log.log import LogRead
from broker.log.record import decode_record, payload_checksum
from tests.broker.harness import (
    PRODUCER,
    PlainClient,
    offsets,
    plain_client,
    publish_all,
    publish_one_by_one,
    running_broker,
    take,
    wait_until,
)

# plain clients


async def test_a_plain_client_publishes_and_gets_its_own_id_back(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker, plain_client(broker.port) as client:
        payloads: list[object] = [{"a": [1, "é"]}, None, 5, "text", [], True]
        for number, payload in enumerate(payloads):
            answer = await client.ask(type="publish", message_id=f"m{number}", payload=payload, topic="unknown field")
            assert answer == {"type": "response", "success": True, "message_id": f"m{number}", "offset": number}


async def test_a_plain_client_reads_all_from_the_start_and_acks_in_any_order(tmp_path: Path) -> None:
    """The literal bytes of a client that knows nothing newer: no hello, no offset, acks by message_id only."""
    async with running_broker(tmp_path) as broker:
        with socket.create_connection(("127.0.0.1", broker.port)) as sock:
            loop = asyncio.get_running_loop()
            sock.setblocking(False)
            received = bytearray()

            async def say(body: bytes) -> None:
                await loop.sock_sendall(sock, len(body).to_bytes(4, "big") + body)

            async def hear() -> dict[str, Any]:
                while len(received) < 4 or len(received) < 4 + int.from_bytes(received[:4], "big"):
                    received.extend(await loop.sock_recv(sock, 4096))
                end = 4 + int.from_bytes(received[:4], "big")
                frame: dict[str, Any] = json.loads(bytes(received[4:end]))
                del received[:end]
                return frame

            for number in range(3):
                await say(b'{"type":"publish","message_id":"p%d","payload":{"n":%d}}' % (number, number))
                assert (await hear())["offset"] == number
            await say(b'{"type":"subscribe","subscriber_id":"collector-1"}')
            assert await hear() == {"type": "response", "success": True, "offset": 0}
            messages = [await hear() for _ in range(3)]
            assert [message["payload"] for message in messages] == [{"n": 0}, {"n": 1}, {"n": 2}]
            assert [message["offset"] for message in messages] == [0, 1, 2]
            assert {message["type"] for message in messages} == {"message"}
            for message in reversed(messages):
                await say(b'{"type":"ack","message_id":"%b"}' % message["message_id"].encode())
                assert await hear() == {"type": "response", "success": True, "message_id": message["message_id"]}
            await say(b'{"type":"nack","message_id":"never seen"}')
            assert await hear() == {"type": "response", "success": True, "message_id": "never seen"}
            await say(b'{"type":"unsubscribe"}')
            assert (await hear())["success"] is True
        assert broker.log.commits.get("collector-1") is None


async def test_every_request_gets_one_answer_in_order(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker, plain_client(broker.port) as client:
        expected: list[tuple[str, object]] = []
        for number in range(50):
            mark = f"{number}"
            match number % 5:
                case 0 | 1:
                    client.send(type="publish", payload=number, message_id=mark)
                    expected.append(("response", mark))
                case 2:
                    client.send(type="ping", message_id=mark)
                    expected.append(("response", mark))
                case 3:
                    client.send(type="dance", message_id=mark)
                    expected.append(("error", mark))
                case _:
                    client.send(type="ack", message_id=mark)
                    expected.append(("response", mark))
        answers = [await client.receive() for _ in range(50)]
        assert [(answer["type"], answer["message_id"]) for answer in answers] == expected
        assert [answer["offset"] for answer in answers if "offset" in answer] == list(range(20))


async def test_what_is_delivered_is_what_lies_on_the_disk(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker, plain_client(broker.port) as client:
        await client.ask(type="publish", payload={"a": 1})
        await client.ask(type="subscribe", subscriber_id="c1")
        length = await client.reader.readexactly(4)
        record = length + await client.reader.readexactly(int.from_bytes(length, "big"))
        assert decode_record(record).payload == b'{"a": 1}'
        assert (tmp_path / f"{0:020d}.log").read_bytes() == record


# bad frames


async def test_garbage_in_a_frame_leaves_the_stream_in_step(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker, plain_client(broker.port) as client:
        for body in (b"garbage", b'{"type":"publish","payload":1e999}', b'{"type":"publish","payload":"\xff"}'):
            client.send_body(body)
            assert (await client.receive())["code"] == "bad_frame"
        assert (await client.ask(type="publish", payload=1))["offset"] == 0


async def test_too_many_clients_are_turned_away_with_a_reason(tmp_path: Path) -> None:
    async with running_broker(tmp_path, max_connections=2) as broker:
        async with plain_client(broker.port) as first, plain_client(broker.port) as second:
            await first.ask(type="ping")
            await second.ask(type="ping")
            async with plain_client(broker.port) as third:
                assert (await third.receive())["code"] == "overloaded"
                assert await third.is_closed()
        await wait_until(lambda: not broker.connections)
        async with plain_client(broker.port) as fourth:
            assert (await fourth.ask(type="ping"))["success"] is True


# the token


async def test_strangers_have_little_time(tmp_path: Path) -> None:
    async with (
        running_broker(tmp_path, token="sesame", hello_s=0.3, tick_s=0.05) as broker,
        plain_client(broker.port) as silent,
    ):
        assert (await silent.receive())["code"] == "unauthorized"
        assert await silent.is_closed()


async def test_strangers_are_few_and_lock_nobody_out(tmp_path: Path) -> None:
    async with running_broker(tmp_path, token="sesame", max_strangers=4) as broker:
        strangers = [await PlainClient.connect(broker.port) for _ in range(20)]
        known = [await PlainClient.connect(broker.port) for _ in range(3)]
        for client in known:
            assert (await client.ask(type="hello", token="sesame"))["type"] == "welcome"
        await wait_until(lambda: len(broker.connections) <= 3 + 4)
        refusal = await strangers[0].receive()
        assert (refusal["code"], "said anything" in refusal["error"]) == ("overloaded", True)
        for client in known:  # those who have sent it stay
            assert (await client.ask(type="ping"))["success"] is True
        for client in (*strangers, *known):
            await client.drop()


async def test_silent_connections_do_not_take_all_places(tmp_path: Path) -> None:
    async with running_broker(tmp_path, max_connections=4) as broker:
        silent = [await PlainClient.connect(broker.port) for _ in range(10)]
        async with plain_client(broker.port) as client:
            assert (await client.ask(type="ping"))["success"] is True
        for one in silent:
            await one.drop()


# heartbeats


async def test_a_peer_that_said_hello_and_fell_silent_is_dropped_and_its_id_free(tmp_path: Path) -> None:
    async with (
        running_broker(tmp_path, ping_after_s=0.1, dead_after_s=0.5, tick_s=0.05) as broker,
        plain_client(broker.port) as silent,
        plain_client(broker.port) as plain,
    ):
        await silent.ask(type="hello")
        await silent.ask(type="subscribe", subscriber_id="c1")
        await plain.ask(type="ping")
        assert await silent.receive() == {"type": "ping"}
        assert (await plain.ask(type="subscribe", subscriber_id="c1"))["code"] == "subscriber_in_use"
        await wait_until(lambda: broker.counters.dead == 1)
        assert (await plain.ask(type="subscribe", subscriber_id="c1"))["success"] is True


# subscribing


async def test_two_subscribers_each_get_everything(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        first = await BrokerClient.connect("127.0.0.1", broker.port)
        second = await BrokerClient.connect("127.0.0.1", broker.port)
        assert await first.subscribe("c1") == 0
        await publish_all(broker.port, 100)
        assert await second.subscribe("c2") == 0
        await publish_all(broker.port, 100, first=100)
        for client in (first, second):
            taken = await take(client, 200)
            assert offsets(taken) == list(range(200))
            assert [json.loads(one.payload)["n"] for one in taken if isinstance(one, Message)] == list(range(200))
            await client.close()


async def test_where_a_subscriber_starts(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        await publish_all(broker.port, 10)
        for offset, first in ((None, 0), (-2, 0), (0, 0), (4, 4), (9, 9), (10, 10), (-1, 10)):
            client = await BrokerClient.connect("127.0.0.1", broker.port)
            assert await client.subscribe(f"c{offset}", offset) == first
            if first < 10:
                assert offsets(await take(client, 10 - first)) == list(range(first, 10))
            await client.close()
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        with pytest.raises(BrokerError, match="past the end") as raised:
            await client.subscribe("c", 11)
        assert raised.value.code == "offset_out_of_range"
        await client.close()


async def test_a_subscriber_resumes_after_its_commit_also_after_a_restart(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        await publish_all(broker.port, 10)
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        await client.subscribe("c1")
        await take(client, 10)
        await client.ack(5)
        await client.ack(3)  # a commit never goes back
        await client.close()
        again = await BrokerClient.connect("127.0.0.1", broker.port)
        await wait_until(lambda: "c1" not in broker.delivery.subscriptions)
        assert await again.subscribe("c1") == 6
        assert offsets(await take(again, 4)) == [6, 7, 8, 9]
        await again.close()
    async with running_broker(tmp_path) as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        assert await client.subscribe("c1") == 6
        assert offsets(await take(client, 4)) == [6, 7, 8, 9]
        await client.close()


async def test_a_second_live_subscriber_with_the_id_is_refused(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        second = await BrokerClient.connect("127.0.0.1", broker.port)
        async with plain_client(broker.port) as first:
            assert (await first.ask(type="subscribe", subscriber_id="c1"))["offset"] == 0
            with pytest.raises(SubscriberInUse, match="c1"):
                await second.subscribe("c1")
            assert (await first.ask(type="unsubscribe"))["success"]
            assert await second.subscribe("c1") == 0
        await second.close()


async def test_subscribing_again_moves_the_subscriber(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        await publish_all(broker.port, 5)
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        await client.subscribe("c1")
        await take(client, 5)
        assert await client.subscribe("c1", 3) == 3
        assert offsets(await take(client, 2)) == [3, 4]
        await client.close()


async def test_a_nack_delivers_again_after_its_answer(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker, plain_client(broker.port) as client:
        await publish_all(broker.port, 4)
        await client.ask(type="subscribe", subscriber_id="c1")
        assert [(await client.receive())["offset"] for _ in range(4)] == [0, 1, 2, 3]
        assert await client.ask(type="nack", offset=2) == {"type": "response", "success": True, "offset": 2}
        assert [(await client.receive())["offset"] for _ in range(2)] == [2, 3]
        assert (await client.ask(type="nack", offset=4))["code"] == "offset_out_of_range"


@pytest.mark.parametrize("kind", ["ack", "nack"])
async def test_offsets_need_a_subscription_and_a_message(tmp_path: Path, kind: str) -> None:
    async with running_broker(tmp_path) as broker, plain_client(broker.port) as client:
        assert (await client.ask(type=kind, offset=0))["code"] == "not_subscribed"
        await client.ask(type="subscribe", subscriber_id="c1")
        assert (await client.ask(type=kind, offset=0))["code"] == "offset_out_of_range"
        assert (await client.ask(type="unsubscribe"))["success"] is True
        assert (await client.ask(type="unsubscribe"))["code"] == "not_subscribed"


async def test_one_connection_may_publish_and_subscribe(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        publishes = [client.publish(b"%d" % number) for number in range(100)]
        assert await client.subscribe("c1") == 0
        publishes += [client.publish(b"%d" % number) for number in range(100, 200)]
        assert [(await publish).offset for publish in publishes] == list(range(200))
        assert offsets(await take(client, 200)) == list(range(200))
        await client.close()


async def test_a_gap_comes_before_the_first_message_after_it(tmp_path: Path) -> None:
    async with running_broker(tmp_path, segment_bytes=4096, buffer_messages=0) as broker:
        await publish_one_by_one(broker.port, 60)
    damaged = sorted(tmp_path.glob("*.log"))[1]  # noqa: ASYNC240
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 0xFF
    damaged.write_bytes(data)
    async with running_broker(tmp_path, buffer_messages=0) as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        await client.subscribe("c1")
        taken = await take(client, 60)
        gaps = [one for one in taken if isinstance(one, Gap)]
        assert [gap.reason for gap in gaps] == ["corrupt"]
        place = taken.index(gaps[0])
        assert offsets(taken[:place])[-1] == gaps[0].first - 1
        assert offsets(taken[place:])[0] == gaps[0].last + 1
        assert sorted(offsets(taken) + list(range(gaps[0].first, gaps[0].last + 1))) == list(range(60))
        await client.close()


async def test_dropped_segments_are_told_as_a_gap(tmp_path: Path) -> None:
    async with running_broker(tmp_path, segment_bytes=4096, buffer_messages=0) as broker:
        await publish_one_by_one(broker.port, 60)
        assert broker.log.drop_before(40) > 0
        oldest = broker.log.oldest_offset
        assert oldest > 0
        async with plain_client(broker.port) as client:
            assert (await client.ask(type="subscribe", subscriber_id="c1", offset=0))["offset"] == oldest
            assert await client.receive() == {"type": "gap", "from": 0, "to": oldest - 1, "reason": "retention"}
            assert (await client.receive())["offset"] == oldest
        assert broker.stats()["gaps"] == 1


# duplicates


async def test_what_is_sent_again_is_kept_once(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        first = [client.publish(b"%d" % n, producer=PRODUCER, sequence=n) for n in (0, 1, 2, 1)]
        assert [(p.offset, p.duplicate) for p in [await f for f in first]] == [
            (0, False),
            (1, False),
            (2, False),
            (1, True),
        ]
        again = await client.publish(b"2", producer=PRODUCER, sequence=2)
        assert tuple(again) == (2, True, payload_checksum(b"2"))
        assert again.is_of(b"2")
        await client.close()
    async with running_broker(tmp_path) as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        other = await client.publish(b'"another"', producer=PRODUCER, sequence=0)
        assert tuple(other) == (0, True, payload_checksum(b"0"))
        assert not other.is_of(b'"another"')
        assert broker.stats()["total_messages"] == 3
        await client.close()


async def test_a_duplicate_within_one_write_and_one_that_retention_dropped_say_what_can_be_said(tmp_path: Path) -> None:
    async with (
        running_broker(tmp_path, segment_bytes=4096, buffer_messages=0) as broker,
        plain_client(broker.port) as client,
    ):
        mine = {"type": "publish", "producer": PRODUCER, "sequence": 1}
        client.send(**mine, payload=1)
        client.send(**mine, payload=2)  # in the same batch
        assert (await client.receive())["offset"] == 0
        assert (await client.receive())["payload_c32"] == payload_checksum(b"1")
        for _ in range(3):
            await client.ask(type="publish", payload="x" * 4096)
        broker.log.drop_before(3)
        answer = await client.ask(**mine, payload=1)
        assert answer["duplicate"]
        assert "payload_c32" not in answer


async def test_a_large_record_is_read_once_however_often_its_number_is_published_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_broker(tmp_path, buffer_messages=0) as broker, plain_client(broker.port) as client:
        mine = {"type": "publish", "producer": PRODUCER, "sequence": 1}
        await client.ask(**mine, payload="x" * 1_000_000)
        reads: list[int] = []
        read = broker.log.read

        def counted(offset: int, most: int) -> LogRead:
            reads.append(offset)
            return read(offset, most)

        monkeypatch.setattr(broker.log, "read", counted)
        answers = [await client.ask(**mine, payload=number) for number in range(20)]
        assert len({answer["payload_c32"] for answer in answers}) == 1
        assert reads == [0]


async def test_no_message_tells_the_id_of_its_producer(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        await client.publish(b"1", producer=PRODUCER, sequence=1)
        await client.subscribe("c1")
        (message,) = await client.receive()
        assert isinstance(message, Message)
        assert message.message_id == f"{sha256(PRODUCER.encode()).hexdigest()[:16]}:{1:012d}"
        await client.close()


async def test_each_publish_gets_its_own_id_and_offset_whatever_came_before_it(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker, plain_client(broker.port) as client:
        mine = {"type": "publish", "producer": PRODUCER}
        for sequence in (0, 1, 2, 1, 3, 5, 4):
            client.send(**mine, sequence=sequence, message_id=f"m{sequence}", payload=sequence)
        for number in range(3):
            client.send(type="publish", message_id=number, payload=[number])
        client.send(type="publish", payload=0)
        client.send(type="get_stats", message_id="s")
        client.send(**mine, sequence=6, payload=6)
        answers = [await client.receive() for _ in range(13)]
        assert [
            (one.get("message_id"), "s" if "payload" in one else one["offset"], one.get("duplicate")) for one in answers
        ] == [
            ("m0", 0, None),
            ("m1", 1, None),
            ("m2", 2, None),
            ("m1", 1, True),
            ("m3", 3, None),
            ("m5", 4, None),
            ("m4", 5, None),
            (0, 6, None),
            (1, 7, None),
            (2, 8, None),
            (None, 9, None),
            ("s", "s", None),
            (None, 10, None),
        ]
        assert broker.stats()["total_messages"] == 11
        (handler,) = broker.connections
        assert (handler.in_flight_messages, handler.in_flight_bytes) == (0, 0)


async def test_each_publish_is_refused_with_its_own_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, pieces: object, position: int) -> int:
        raise OSError(28, "No space left on device")

    async with running_broker(tmp_path) as broker, plain_client(broker.port) as client:
        with monkeypatch.context() as patch:
            patch.setattr(broker.log._disk, "write", full)
            for mark in ("a", "b", None):
                client.send(type="publish", payload=1, **({"message_id": mark} if mark else {}))
            answers = [await client.receive() for _ in range(3)]
        assert [(one.get("message_id"), one["code"]) for one in answers] == [
            ("a", "disk_full"),
            ("b", "disk_full"),
            (None, "disk_full"),
        ]
        assert broker.stats()["errors"]["disk_full"] == 3


# slow peers


async def test_a_subscriber_that_never_reads_neither_blocks_others_nor_grows_memory(tmp_path: Path) -> None:
    async with running_broker(tmp_path, fsync="never") as broker:
        stuck = [await PlainClient.connect(broker.port) for _ in range(4)]
        for number, client in enumerate(stuck):
            await client.ask(type="subscribe", subscriber_id=f"stuck-{number}")
            client.stop_reading()
        healthy = await BrokerClient.connect("127.0.0.1", broker.port)
        await healthy.subscribe("healthy")
        count, size = 800, 50_000  # 40 MB: far more than all sockets and buffers hold
        publishing = asyncio.create_task(publish_all(broker.port, count, size=size))
        assert offsets(await take(healthy, count)) == list(range(count))
        await publishing
        for handler in broker.connections:
            assert handler.transport.get_write_buffer_size() < 1 << 20
        # One that wakes up gets all of it, in order.
        stuck[0].read_again()
        assert [(await stuck[0].receive())["offset"] for _ in range(count)] == list(range(count))
        for client in stuck:
            await client.drop()
        await healthy.close()


async def test_a_flood_of_small_requests_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with (
        running_broker(tmp_path) as broker,
        plain_client(broker.port) as flood,
        plain_client(broker.port) as other,
    ):
        await other.ask(type="ping")
        count = 40_000
        flood.writer.write(b"\0\0\0\2{}" * count)
        await wait_until(lambda: broker.counters.bad_requests > 0)
        assert (await other.ask(type="ping"))["success"] is True
        assert broker.counters.bad_requests < count // 2
        for _ in range(count):
            assert (await flood.receive())["code"] == "unknown_type"
        assert (await flood.ask(type="ping"))["success"] is True


async def test_a_publisher_that_does_not_read_its_answers_is_not_read_either(tmp_path: Path) -> None:
    async with running_broker(tmp_path, fsync="never") as broker, plain_client(broker.port) as client:
        client.stop_reading()
        mark = "m" * 1000
        body = json.dumps({"type": "ping", "message_id": mark}).encode()
        frame = len(body).to_bytes(4, "big") + body
        client.writer.transport.set_write_buffer_limits(high=1 << 30)
        count = 20_000
        client.writer.write(frame * count)
        (handler,) = broker.connections
        await wait_until(lambda: not handler.transport.is_reading())
        assert handler.transport.get_write_buffer_size() < 4 << 20
        client.read_again()
        for _ in range(count):
            assert (await client.receive())["message_id"] == mark


async def test_a_client_that_outruns_the_disk_is_slowed_and_loses_nothing(tmp_path: Path) -> None:
    async with running_broker(tmp_path, in_flight_messages=10) as broker:
        await publish_all(broker.port, 500)
        assert broker.log.next_offset == 500
        assert all(handler.in_flight_messages == 0 for handler in broker.connections)


async def test_all_clients_together_hold_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    async with running_broker(tmp_path, partial_bytes=8 << 20) as broker:
        clients = [await PlainClient.connect(broker.port) for _ in range(8)]
        for client in clients:
            client.writer.write((4 << 20).to_bytes(4, "big") + b"x" * (3 << 20))
        await wait_until(lambda: broker.counters.errors["overloaded"])
        assert broker.partial_bytes <= 8 << 20
        payload = b'"%b"' % (b"x" * (3 << 20))
        publisher = await BrokerClient.connect("127.0.0.1", broker.port)
        assert (await publisher.publish(payload)).offset == 0  # large frames still come through, and nobody waits
        await publisher.close()
        for client in clients:
            await client.drop()


async def test_who_hangs_up_half_way_still_gets_its_answers(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker, plain_client(broker.port) as client:
        for number in range(20):
            client.send(type="publish", payload=number)
        client.writer.write_eof()
        assert [(await client.receive())["offset"] for _ in range(20)] == list(range(20))
        assert await client.is_closed()


# what costs much


async def test_stats_that_nobody_takes_cost_little(tmp_path: Path) -> None:
    async with running_broker(tmp_path, take_answer_s=0.5, tick_s=0.05) as broker:
        await publish_all(broker.port, 1)
        for number in range(5_000):
            broker.log.commits.set(f"collector-{number:05d}-" + "x" * 100, 0)
        async with plain_client(broker.port) as greedy, plain_client(broker.port) as other:
            greedy.stop_reading()
            for _ in range(1000):
                greedy.send(type="get_stats")
            greedy.send(type="ping")
            await greedy.writer.drain()
            for _ in range(50):
                assert (await other.ask(type="ping"))["success"] is True
            held = sum(session.transport.get_write_buffer_size() for session in broker.connections)
            assert held < 4 << 20  # one answer of 1.3 MB, not a thousand
            assert broker.loop_lag < 0.5
            await wait_until(lambda: broker.counters.dead == 1)  # it does not take its answers


async def test_every_stats_request_is_answered_in_order_to_one_that_reads(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        await publish_all(broker.port, 1)
        for number in range(2_000):
            broker.log.commits.set(f"collector-{number:05d}", 0)
        async with plain_client(broker.port) as client:
            for number in range(60):
                client.send(type="get_stats", message_id=number)
            client.send(type="publish", payload=1, message_id=60)
            client.send(type="ping", message_id=61)
            client.send_body(b"[]")
            client.writer.write_eof()
            answers = [await client.receive() for _ in range(63)]
            assert [answer.get("message_id") for answer in answers] == [*range(62), None]
            assert len(answers[0]["payload"]["subscribers"]) == 2_000
            assert await client.is_closed()


async def test_many_clients_that_take_no_stats_hold_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    async with running_broker(tmp_path, unread_bytes=4 << 20) as broker:
        await publish_all(broker.port, 1)
        for number in range(10_000):
            broker.log.commits.set(f"collector-{number:05d}-" + "x" * 100, 0)
        clients = [await PlainClient.connect(broker.port) for _ in range(20)]
        for client in clients:
            client.stop_reading()
            client.send(type="get_stats")
        async with plain_client(broker.port) as other:
            for _ in range(20):
                assert (await other.ask(type="ping"))["success"] is True
                held = sum(session.transport.get_write_buffer_size() for session in broker.connections)
                assert held < 8 << 20
        for client in clients:
            await client.drop()


async def test_a_subscriber_that_stops_for_a_while_is_not_dropped(tmp_path: Path) -> None:
    async with running_broker(tmp_path, take_answer_s=0.1, tick_s=0.02) as broker:
        await publish_all(broker.port, 2_000, size=10_000)
        async with plain_client(broker.port) as slow:
            await slow.ask(type="subscribe", subscriber_id="slow", offset=-2)
            slow.stop_reading()
            await wait_until(lambda: broker.delivery.subscriptions["slow"].paused)
            await asyncio.sleep(0.3)
            slow.read_again()
            assert [(await slow.receive())["offset"] for _ in range(2_000)] == list(range(2_000))
