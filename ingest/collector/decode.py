"""Decodes and checks messages, and gathers the result until the next flush. The collector bounds it by flushing in time."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from broker.client.client import Gap, Message
from ingest.collector.letters import BYTES_OF_FLUSH, Letters
from ingest.collector.limits import IntakeLimits
from ingest.unsupported import Unsupported
from inventory.sync.sightings import Origin
from readings.batch import BatchError, decode
from readings.checks import BAD_MESSAGE, LOST_MESSAGE, NOT_SUPPORTED, UNFINISHED_MESSAGE, Refusals, known_reasons
from readings.model import PointBlock
from readings.times import SECOND

logger = logging.getLogger(__name__)

FLUSH_READINGS = 50_000
FLUSH_BYTES = 8 << 20


@dataclass(slots=True)
class Pending:
    """Everything received since the last flush. ``last_offset`` is the newest message, received or lost; -1: nothing to commit."""

    blocks: list[PointBlock] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)  # of each block
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
    """Turns messages into checked blocks. ``retention`` in seconds; 0, or ``age_is_unsure``, refuses no reading for its age."""

    def __init__(self, retention: float, limits: IntakeLimits | None = None) -> None:
        self.pending = Pending()
        self.letters = Letters()
        self._unsupported = Unsupported()
        self.age_is_unsure = False
        self._limits = limits
        self._retention_ns = int(retention * SECOND)

    @property
    def full(self) -> bool:
        """Whether there is as much as one flush may hold."""
        pending = self.pending
        return (
            pending.readings >= FLUSH_READINGS or pending.bytes >= FLUSH_BYTES or self.letters.bytes >= BYTES_OF_FLUSH
        )

    def drain(self) -> Pending:
        """Returns the pending data and starts a new collection."""
        pending, self.pending = self.pending, Pending()
        pending.letters = self.letters.take()
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
            oldest_ns = now_ns - self._retention_ns if self._retention_ns and not self.age_is_unsure else None
            decoded = decode(message.payload, now_ns=now_ns, oldest_ns=oldest_ns)
            if self._limits is not None:
                decoded.block, beyond = self._limits.check(decoded.block)
                if beyond is not None:
                    decoded.refusals.merge(beyond)
        except BatchError as error:
            self._bury(message, BAD_MESSAGE, str(error), now_ns)
            return
        except Exception as error:  # our own bug, or too little memory, must not block the log either
            logger.exception("message %d: cannot be handled", message.offset)
            self._bury(message, BAD_MESSAGE, repr(error), now_ns)
            return
        if decoded.block.points:
            pending.blocks.append(decoded.block)
            pending.origins.append(Origin(decoded.source, decoded.live))
            pending.readings += _count(decoded.block)
        if decoded.reported:
            pending.refused.update(known_reasons(decoded.reported))
        if decoded.remarks:
            pending.refused.update(decoded.remarks)
        if decoded.refusals.counts:
            pending.refused.update(decoded.refusals.counts)
            self.letters.refuse(message, decoded, now_ns)
            self._say_unsupported(decoded.refusals)

    def _say_unsupported(self, refusals: Refusals) -> None:
        for refusal in refusals:
            if refusal.reason == NOT_SUPPORTED and refusal.block is not None:
                self._unsupported.note(refusal.block.gpus[0].id, refusal.block.metric_names[0])
        for line in self._unsupported.take():
            logger.info("%s", line)

    def give_up(self, message: Message) -> None:
        """Puts a message that has stopped collectors before into the dead letters, unread."""
        pending = self._begin(message.offset)
        pending.messages += 1
        pending.bytes += len(message.payload)
        detail = "collectors were killed three times while they had this message in hand"
        logger.error("message %d goes to the dead letters unread: %s", message.offset, detail)
        self._bury(message, UNFINISHED_MESSAGE, detail, time.time_ns())

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

    def _bury(self, message: Message, reason: str, detail: str, now_ns: int) -> None:
        logger.debug("message %d: %s", message.offset, detail)
        self.pending.refused[reason] += 1
        self.letters.bury(message, reason, detail, now_ns)


def _count(block: PointBlock) -> int:
    """The number of readings. Others need the block's arrays as well, and counting there takes a twentieth of a large one's time."""
    try:
        values = block.arrays.values
    except ValueError:  # something that no store takes
        return block.count()
    return values.size - int(np.count_nonzero(np.isnan(values)))
