from __future__ import annotations

import base64
import json
import time
from typing import Any

import msgspec

from broker.client.client import Message
from ingest.collector import letters as letters_module
from ingest.collector.letters import BYTES_OF_MESSAGE, MOST_OF_MESSAGE, Letters, Repeats, StoreLetters, is_told
from readings.batch import decode, encode_block
from readings.model import Gpu, PointBlock
from readings.times import SECOND
from stores.base import RefusedReading

NOW = time.time_ns()
HEAVY = Gpu(uuid="GPU-heavy", hostname="node-7", labels={f"label{n}": "x" * 4000 for n in range(50)})


def message(block: PointBlock, offset: int = 1, source: str = "s") -> Message:
    payload = encode_block(block, batch_id="b", source=source, collected_at="")
    return Message(offset, 0, f"id:{offset}", payload)


def bad(readings: int, gpu: Gpu | None = None, metric: str = "DCGM_FI_DEV_GPU_TEMP", first: int = 0) -> PointBlock:
    """So many readings that are out of range, each of a GPU of its own unless one is given."""
    gpus = [gpu] if gpu else [Gpu(uuid=f"GPU-{first + n}") for n in range(readings)]
    return PointBlock(gpus, [metric], [(0 if gpu else n, NOW - n, [5000.0 + n]) for n in range(readings)])


def told(letters: Letters, given: Message) -> list[dict[str, Any]]:
    letters.refuse(given, decode(given.payload, now_ns=NOW), NOW)
    return [json.loads(msgspec.json.encode(letter)) for letter in letters.take()]


def test_a_reading_gets_a_letter_of_its_own_that_can_be_repaired() -> None:
    (letter,) = told(Letters(), message(bad(1), offset=7))
    assert (letter["offset"], letter["message_id"], letter["source"], letter["reason"]) == (
        7,
        "id:7",
        "s",
        "out_of_range",
    )
    assert decode(json.dumps(letter["batch"]).encode()).block == bad(1)


def test_of_many_readings_the_first_get_letters_and_the_rest_one_with_the_message() -> None:
    given = message(bad(5000))
    *single, rest = told(Letters(), given)
    assert len(single) == MOST_OF_MESSAGE
    assert all("batch" in letter and "payload" not in letter for letter in single)
    assert rest["payload"].encode() == given.payload
    assert rest["readings"] == {"out_of_range": 4900}
    assert (rest["reason"], rest["offset"], rest["message_id"]) == ("out_of_range", 1, "id:1")
    assert "4900 further readings" in rest["detail"]


def test_letters_grow_with_the_message_and_not_with_its_readings_times_their_gpu() -> None:
    given = message(bad(3000, HEAVY))
    letters = Letters()
    size = len(msgspec.json.encode(told(letters, given)))
    assert size < len(given.payload) * 1.5 + BYTES_OF_MESSAGE


def test_what_repeats_at_each_scrape_is_kept_once_and_its_count_is_said_at_times() -> None:
    letters = Letters()
    kept = [told(letters, message(bad(3), offset)) for offset in range(120)]
    assert [(offset, [letter.get("repeats") for letter in each]) for offset, each in enumerate(kept) if each] == [
        (0, [None] * 3), (9, [10] * 3), (99, [100] * 3),
    ]  # fmt: skip
    assert len(told(letters, message(bad(1, first=50)))) == 1  # another GPU
    assert len(told(letters, message(bad(1, metric="DCGM_FI_DEV_MEM_CLOCK")))) == 0  # it has no such limit
    assert len(told(letters, message(bad(1, Gpu(uuid="GPU-0", hostname="moved"))))) == 1


def test_a_full_message_that_comes_at_each_scrape_is_kept_once_too() -> None:
    letters = Letters()
    sizes = [len(told(letters, message(bad(5000), offset))) for offset in range(9)]
    assert sizes[0] == MOST_OF_MESSAGE + 1
    # All of the first 1,000 are known after ten of them.
    assert sum(sizes) <= 1000 + 1


def test_what_is_by_design_no_reading_gets_no_letter() -> None:
    block = PointBlock([Gpu(uuid="GPU-1")], ["DCGM_FI_DEV_MEMORY_TEMP"], [(0, NOW, [0.0])])
    decoded = decode(message(block).payload, now_ns=NOW)
    assert dict(decoded.refusals.counts) == {"not_supported": 1}
    assert told(Letters(), message(block)) == []


def test_refusals_without_a_reading_repeat_where_only_their_numbers_differ() -> None:
    letters = Letters()
    payloads = [f'{{"source":"s","metrics":[{"{}," * n}{{"value":"x"}}]}}'.encode() for n in range(3)]
    found = [told(letters, Message(n, 0, "", payload)) for n, payload in enumerate(payloads)]
    assert [len(each) for each in found] == [1, 1, 0]  # {} is another fault than a bad value


def test_a_message_is_kept_whole_and_the_same_bytes_once() -> None:
    letters = Letters()
    for payload in (b'"no batch"', b"\xff\x00" * 300_000, b'"no batch"'):
        letters.bury(Message(5, 0, "id:5", payload), "bad_message", "why", NOW)
    text, binary = letters.take()
    assert text["payload"] == '"no batch"'
    assert base64.b64decode(binary["payload_base64"]) == b"\xff\x00" * 300_000
    assert (binary["offset"], binary["message_id"]) == (5, "id:5")


def test_their_size_is_known_before_they_are_written() -> None:
    letters = Letters()
    letters.bury(Message(5, 0, "", b"x" * 100_000), "bad_message", "why", NOW)
    assert 100_000 < letters.bytes < 101_000
    letters.take()
    assert (letters.bytes, len(letters)) == (0, 0)


def test_memory_of_repeats_is_bounded_and_keeps_what_came_last() -> None:
    repeats = Repeats(most=3)
    assert [repeats.count(thing) for thing in "aabcd"] == [1, 2, 1, 1, 1]
    assert [repeats.count(thing) for thing in "da"] == [2, 1]


def test_the_first_tenth_and_hundredth_time_are_told() -> None:
    assert [count for count in range(1, 2000) if is_told(count)] == [1, 10, 100, 1000]


def test_what_the_store_refuses_is_bounded_and_kept_once() -> None:
    letters = StoreLetters()
    refused = [RefusedReading(f"GPU-{n}", "m", n, 1.0, "schema") for n in range(500)]
    *single, rest = letters.refuse_stored(refused, NOW)
    assert len(single) == letters_module.MOST_OF_MESSAGE
    assert (single[0]["gpu"], single[0]["detail"], single[0]["reason"]) == ("GPU-0", "schema", "store_refused")
    assert rest["readings"] == {"schema": 400}
    assert letters.refuse_stored(refused[:50], NOW + SECOND) == []
