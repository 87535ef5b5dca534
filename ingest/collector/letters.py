"""The dead letters of a flush: bounded for each message and in all, and what repeats is kept once.

A message of some hundred kilobytes may hold millions of bad readings of one GPU, and a sensor may be wrong at each scrape.
"""

from __future__ import annotations

import base64
from collections import Counter, OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import msgspec

from broker.client.client import Message
from readings.batch import DecodedBatch, encode_block
from readings.checks import PASSED_OVER, STORE_REFUSED, Refusal
from readings.times import format_time
from stores.base import RefusedReading

# Readings of one message that get a letter each, and the size of those letters. The rest is in one letter with the message.
MOST_OF_MESSAGE = 100
BYTES_OF_MESSAGE = 256 << 10
# A flush is due when its letters are that large.
BYTES_OF_FLUSH = 8 << 20
_REPEATS_KNOWN = 50_000
_LETTER_BYTES = 300  # without what differs
_DIGITS = str.maketrans(dict.fromkeys("0123456789", "0"))


class Repeats:
    """Counts what was refused before, for the ``most`` things that were refused last."""

    def __init__(self, most: int = _REPEATS_KNOWN) -> None:
        self._most = most
        self._counts: OrderedDict[int, int] = OrderedDict()

    def count(self, thing: Hashable) -> int:
        """How often it came, this time included. Two things may be taken for one, once in 2**64 times."""
        key = hash(thing)
        count = self._counts[key] = self._counts.pop(key, 0) + 1
        if len(self._counts) > self._most:
            self._counts.popitem(last=False)
        return count


def is_told(count: int) -> bool:
    """Whether the thing that came for the ``count``-th time gets a letter: the first, the 10th, the 100th …"""
    while count % 10 == 0:
        count //= 10
    return count == 1


class Letters:
    """Gathers letters until they are taken for writing. ``bytes`` is about their size."""

    def __init__(self) -> None:
        self.bytes = 0
        self._letters: list[dict[str, Any]] = []
        self._repeats = Repeats()

    def __len__(self) -> int:
        return len(self._letters)

    def take(self) -> list[dict[str, Any]]:
        """The letters so far; begins with none."""
        letters, self._letters = self._letters, []
        self.bytes = 0
        return letters

    def bury(self, message: Message, reason: str, detail: str, now_ns: int) -> None:
        """A letter with the whole message, unless the same bytes were kept before."""
        letter = {**_head(message, now_ns), "reason": reason, "detail": detail}
        # All other letters hold readings; this is the only copy of those in it.
        self._put((reason, bytes(message.payload)), letter | _payload(message), len(message.payload))

    def refuse(self, message: Message, decoded: DecodedBatch, now_ns: int) -> None:
        """Letters for the refused readings of a message. What is by design no reading gets none."""
        refused = Counter(
            {reason: count for reason, count in decoded.refusals.counts.items() if reason not in PASSED_OVER}
        )
        head = {**_head(message, now_ns), "source": decoded.source, "batch_id": decoded.batch_id}
        left = refused.copy()
        kept = size = 0
        for refusal in decoded.refusals:
            if refusal.reason in PASSED_OVER:
                continue
            if kept == MOST_OF_MESSAGE or size >= BYTES_OF_MESSAGE:
                break
            letter = {**head, "reason": refusal.reason, "detail": refusal.detail}
            batch = b""
            if refusal.block is not None:
                batch = encode_block(refusal.block, batch_id=decoded.batch_id, source=decoded.source, collected_at="")
            elif refusal.original is not None:
                batch = refusal.original()
            if batch:  # of its own: it can be repaired and sent again
                letter["batch"] = msgspec.Raw(batch)
            if size + len(batch) > BYTES_OF_MESSAGE:
                break
            left[refusal.reason] -= 1
            if self._put(_thing(refusal, decoded.source), letter, len(batch) + len(refusal.detail)):
                kept += 1
                size += len(batch) + _LETTER_BYTES
        if left.total():
            self._sum_up(message, head, decoded.source, +left)

    def _sum_up(self, message: Message, head: Mapping[str, Any], source: str, left: Counter[str]) -> None:
        (reason, _), *_ = left.most_common(1)
        names = ", ".join(f"{each} {count}" for each, count in left.most_common())
        letter = {
            **head,
            "reason": reason,
            "detail": f"{left.total()} further readings of this message were refused: {names}",
            "readings": dict(left),
        }
        self._put((source, *sorted(left)), letter | _payload(message), len(message.payload))

    def _put(self, thing: Hashable, letter: dict[str, Any], size: int) -> bool:
        count = self._repeats.count(thing)
        if not is_told(count):
            return False
        self._letters.append(_repeated(letter, count))
        self.bytes += size + _LETTER_BYTES
        return True


class StoreLetters:
    """Letters for readings that the store refused, whose messages are gone by then. For one thread."""

    def __init__(self) -> None:
        self._repeats = Repeats()

    def refuse_stored(self, refused: Sequence[RefusedReading], now_ns: int) -> list[dict[str, Any]]:
        """The letters of one write: for the first readings, and one for the rest, of which the broker's log has the messages."""
        letters: list[dict[str, Any]] = []
        left: Counter[str] = Counter()
        for each in refused:
            if len(letters) >= MOST_OF_MESSAGE:
                left[each.reason[:MOST_OF_MESSAGE]] += 1
                continue
            count = self._repeats.count((each.gpu, each.metric_name))
            if is_told(count):
                letters.append(
                    _repeated(
                        {
                            "time": format_time(now_ns),
                            "reason": STORE_REFUSED,
                            "detail": each.reason,
                            "gpu": each.gpu,
                            "metric_name": each.metric_name,
                            "time_ns": each.time_ns,
                            "value": each.value,
                        },
                        count,
                    )
                )
        if left:
            detail = f"the store refused {left.total()} further readings of this write"
            reasons = dict(left.most_common(MOST_OF_MESSAGE))
            letters.append(
                {"time": format_time(now_ns), "reason": STORE_REFUSED, "detail": detail, "readings": reasons}
            )
        return letters


def _repeated(letter: dict[str, Any], count: int) -> dict[str, Any]:
    return {**letter, "repeats": count} if count > 1 else letter


def _head(message: Message, now_ns: int) -> dict[str, Any]:
    return {"time": format_time(now_ns), "offset": message.offset, "message_id": message.message_id}


def _payload(message: Message) -> dict[str, Any]:
    """The message's bytes: as text, and where they are none with a copy that is exact."""
    payload = bytes(message.payload)
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        exact = base64.b64encode(payload).decode()
        return {"payload": payload.decode("utf-8", "replace"), "payload_base64": exact}


def _thing(refusal: Refusal, source: str) -> Hashable:
    """What a refusal is about. Numbers in details (places, times) differ at each scrape."""
    if refusal.block is None:
        return refusal.reason, source, refusal.detail.translate(_DIGITS)
    [gpu], [name] = refusal.block.gpus, refusal.block.metric_names
    return refusal.reason, gpu.id, name, gpu.hostname
