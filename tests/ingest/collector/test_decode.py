from __future__ import annotations

import json
import logging
import time

import pytest

from broker.client.client import Gap, Message
from ingest.collector import decode
from ingest.collector.decode import BatchDecoder
from readings.batch import encode_block
from readings.model import Gpu, PointBlock
from readings.times import SECOND


def message(offset: int, payload: bytes) -> Message:
    return Message(offset, 0, f"0123456789abcdef:{offset}", payload)


def payload(value: float = 50.0, *, age: float = 0.0, metric: str = "DCGM_FI_DEV_GPU_UTIL", **counts: int) -> bytes:
    block = PointBlock([Gpu(uuid="GPU-1")], [metric], [(0, time.time_ns() - int(age * SECOND), [value])])
    return encode_block(block, batch_id="b1", source="s1", collected_at="2025-07-18T20:42:34Z", refused=counts)


def test_good_messages_gather_until_they_are_drained() -> None:
    taken = BatchDecoder(0)
    assert not taken.pending
    for offset in (5, 6):
        taken.take(message(offset, payload()))
    pending = taken.drain()
    assert (pending.messages, pending.readings, pending.last_offset) == (2, 2, 6)
    assert len(pending.blocks) == 2
    assert pending.bytes > 100
    assert pending.letters == []
    assert not taken.pending


@pytest.mark.parametrize("points", [1, 63, 64, 200])
def test_the_readings_of_small_and_large_blocks_are_counted(points: int) -> None:
    now_ns = time.time_ns()
    block = PointBlock(
        [Gpu(uuid="GPU-1")],
        ["DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP"],
        [(0, now_ns - each * SECOND, [50.0, None if each % 3 else 40.0]) for each in range(points)],
    )
    taken = BatchDecoder(0)
    taken.take(message(1, encode_block(block, batch_id="b1", source="s1", collected_at="2025-07-18T20:42:34Z")))
    assert taken.pending.readings == block.count()


@pytest.mark.parametrize("bad", [b"null", b"[]", b"{}", b'"text"', b'{"points": 3}', b"\xff", b"[" * 100_000])
def test_what_is_no_batch_becomes_a_dead_letter_with_offset_and_reason(bad: bytes) -> None:
    taken = BatchDecoder(0)
    taken.take(message(9, bad))
    pending = taken.drain()
    assert pending.refused == {"bad_message": 1}
    assert pending.last_offset == 9
    assert pending.blocks == []
    (letter,) = pending.letters
    assert (letter["offset"], letter["reason"]) == (9, "bad_message")
    assert letter["detail"]
    assert "\n" not in letter["detail"]


def test_a_fault_of_our_own_blocks_nothing_either(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: bytes, **limits: object) -> None:
        raise ZeroDivisionError("oops")

    taken = BatchDecoder(0)
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(decode, "decode", broken)
        taken.take(message(1, payload()))
    taken.take(message(2, payload()))
    assert taken.pending.refused == {"bad_message": 1}
    assert taken.pending.readings == 1
    assert "message 1: cannot be handled" in caplog.text


def test_refused_readings_are_counted_with_those_that_the_streamer_refused() -> None:
    taken = BatchDecoder(0)
    taken.take(message(1, payload(2619.0, short_row=2, out_of_range=1)))
    pending = taken.drain()
    assert pending.refused == {"short_row": 2, "out_of_range": 2}
    assert pending.blocks == []
    (letter,) = pending.letters
    assert (letter["offset"], letter["source"], letter["batch_id"], letter["reason"]) == (1, "s1", "b1", "out_of_range")
    assert "2619" in letter["detail"]


def test_readings_older_than_the_retention_period_are_refused() -> None:
    taken = BatchDecoder(60.0)
    taken.take(message(1, payload(age=30)))
    taken.take(message(2, payload(age=90)))
    assert taken.pending.readings == 1
    assert taken.pending.refused == {"too_old": 1}
    for_ever = BatchDecoder(0)
    for_ever.take(message(1, payload(age=1e9)))
    assert for_ever.pending.readings == 1


def test_plain_messages_are_taken_too() -> None:
    plain = {"metrics": [{"timestamp": "2025-07-18T20:42:34Z", "metric_name": "DCGM_FI_DEV_GPU_TEMP", "gpu_id": 0, "device": "nvidia0",
                          "uuid": "GPU-1", "model_name": "m", "hostname": "h", "value": 50}]}  # fmt: skip
    taken = BatchDecoder(0)
    taken.take(message(1, json.dumps(plain).encode()))
    assert taken.pending.readings == 1


def test_gaps_are_said_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    taken = BatchDecoder(0)
    taken.take_gap(Gap(3, 7, "retention"))
    assert "messages 3 to 7 are no longer in the broker's log (retention)" in caplog.text
    assert taken.pending
    assert taken.pending.refused == {"lost_message": 5}
    assert taken.pending.last_offset == 7


def test_pending_of_another_log_is_kept_but_not_committed() -> None:
    taken = BatchDecoder(0)
    taken.take(message(9, payload()))
    taken.forget_offsets()
    assert taken.pending
    assert taken.drain().last_offset == -1


def test_reasons_that_streamers_invent_are_counted_as_one() -> None:
    taken = BatchDecoder(0)
    for number in range(100):
        taken.take(message(number, payload(blank=1, **{f"made_up_{number}": 1})))  # type: ignore[arg-type]
    assert taken.drain().refused == {"other": 100, "blank": 100}


def test_it_is_full_of_readings_bytes_or_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "FLUSH_READINGS", 3)
    taken = BatchDecoder(0)
    found = []
    for offset in range(3):
        found.append(taken.full)
        taken.take(message(offset, payload()))
    found.append(taken.full)
    taken.drain()
    assert [*found, taken.full] == [False, False, False, True, False]
    monkeypatch.setattr(decode, "BYTES_OF_FLUSH", 20_000)
    taken.take(message(4, b'"' + b"x" * 20_000))
    found = [taken.full]
    assert len(taken.drain().letters) == 1
    monkeypatch.setattr(decode, "FLUSH_BYTES", 100)
    taken.take(message(5, payload()))
    assert [*found, taken.full] == [True, True]


def test_a_message_that_stopped_collectors_is_kept_unread() -> None:
    taken = BatchDecoder(0)
    taken.give_up(message(8, payload()))
    pending = taken.drain()
    assert (pending.refused, pending.last_offset, pending.blocks) == ({"unfinished_message": 1}, 8, [])
    (letter,) = pending.letters
    assert json.loads(letter["payload"])["source"] == "s1"


def test_what_a_gpu_lacks_is_passed_over_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    taken = BatchDecoder(0)
    for offset in range(3):
        taken.take(message(offset, payload(0.0, metric="DCGM_FI_DEV_MEMORY_TEMP")))
    pending = taken.drain()
    assert (pending.refused, pending.readings, pending.letters) == ({"not_supported": 3}, 0, [])
    assert caplog.text.count("GPU-1: not supported: DCGM_FI_DEV_MEMORY_TEMP") == 1
