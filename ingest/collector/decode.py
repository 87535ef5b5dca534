"""Decodes and checks messages, and gathers the result until the next flush. The collector bounds it by flushing in time."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from broker.client.client import Gap, Message
from ingest.dead_letters import shorten
from readings.batch import BatchError, DecodedBatch, decode, encode_block
from readings.model import PointBlock
from readings.times import SECOND, format_time

logger = logging.getLogger(__name__)

# Counted with the reasons of refused readings, but per message: one that is not a batch, one that the broker no longer has.
BAD_MESSAGE = "bad_message"
LOST_MESSAGE = "lost_message"


@dataclass(slots=True)
class Pending:
    """Everything received since the last flush. ``last_offset`` is the newest message, received or lost; -1: nothing to commit."""

    blocks: list[PointBlock] = field(default_factory=list)
    letters: list[dict[str, Any]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    readings: int = 0
    bytes: int = 0
    last_offset: int = -1
    since: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.messages or self.refused)


class BatchDecoder:
    """Turns messages into checked blocks. ``retention`` in seconds; 0 refuses no reading for its age."""

    def __init__(self, retention: float) -> None:
        self.pending = Pending()
        self._retention_ns = int(retention * SECOND)

    def drain(self) -> Pending:
        """Returns the pending data and starts a new collection."""
        pending, self.pending = self.pending, Pending()
        return pending

    def forget_offsets(self) -> None:
        """Pending readings came from another log: they are still written, but no offset is committed for them."""
        self.pending.last_offset = -1

    def take(self, message: Message) -> None:
        """Decodes one message. Never raises: a message that is not a batch becomes a dead letter and cannot block the log."""
        pending = self._begin(message.offset)
        pending.messages += 1
        pending.bytes += len(message.payload)
        now_ns = time.time_ns()
        try:
            oldest_ns = now_ns - self._retention_ns if self._retention_ns else None
            decoded = decode(message.payload, now_ns=now_ns, oldest_ns=oldest_ns)
        except BatchError as error:
            self._bury(message, str(error), now_ns)
            return
        except Exception as error:  # our own bug must not block the log either
            logger.exception("message %d: cannot be handled", message.offset)
            self._bury(message, repr(error), now_ns)
            return
        if decoded.block.points:
            pending.blocks.append(decoded.block)
            pending.readings += decoded.block.count()
        pending.refused.update(decoded.reported)
        if decoded.refusals:
            self._refuse(message, decoded, now_ns)

    def take_gap(self, gap: Gap) -> None:
        """Counts messages that the broker no longer has."""
        count = gap.last - gap.first + 1
        logger.warning(
            "messages %(first)d to %(last)d are no longer in the broker's log (%(reason)s)",
            {"first": gap.first, "last": gap.last, "reason": gap.reason},
        )
        self._begin(gap.last).refused[LOST_MESSAGE] += count

    def _begin(self, offset: int) -> Pending:
        pending = self.pending
        if not pending:
            pending.since = time.monotonic()
        pending.last_offset = offset
        return pending

    def _bury(self, message: Message, detail: str, now_ns: int) -> None:
        logger.debug("message %d: %s", message.offset, detail)
        self.pending.refused[BAD_MESSAGE] += 1
        self.pending.letters.append(
            {
                "time": format_time(now_ns),
                "offset": message.offset,
                "message_id": message.message_id,
                "reason": BAD_MESSAGE,
                "detail": detail,
                "payload": shorten(bytes(message.payload).decode("utf-8", "replace")),
            }
        )

    def _refuse(self, message: Message, decoded: DecodedBatch, now_ns: int) -> None:
        head = {
            "time": format_time(now_ns),
            "offset": message.offset,
            "source": decoded.source,
            "batch_id": decoded.batch_id,
        }
        for refusal in decoded.refusals:
            self.pending.refused[refusal.reason] += 1
            letter = {**head, "reason": refusal.reason, "detail": refusal.detail}
            if refusal.block is not None:
                # A batch of its own: it can be repaired and sent again.
                letter["batch"] = msgspec.Raw(
                    encode_block(refusal.block, batch_id=decoded.batch_id, source=decoded.source, collected_at="")
                )
            self.pending.letters.append(letter)
