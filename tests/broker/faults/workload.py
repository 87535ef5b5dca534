"""Publishers that keep book, and the check of what a broker made of it.

Each message is told by its producer and sequence alone, so that the check needs no copy of what was sent. What was not
answered is sent again, with the same sequence, when the publisher comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from dataclasses import dataclass, field

from broker.client.client import BrokerClient, Message, Published
from broker.errors import BrokerError
from broker.log.record import NO_PRODUCER, key_of

SMALL, LARGE = 400, 25_000


def payload(producer: str, sequence: int) -> bytes:
    """What a publisher says: mostly small, every seventh a large one."""
    size = LARGE if sequence % 7 == 3 else SMALL
    return f'{{"p":"{producer}","n":{sequence},"fill":"{"x" * (size + sequence % 50)}"}}'.encode()


@dataclass
class Verdict:
    """What the log holds beside what was answered. All but the counts must be 0."""

    answered: int = 0
    records: int = 0
    lost: int = 0
    repeated: int = 0
    wrong_offset: int = 0
    wrong_payload: int = 0
    out_of_order: int = 0
    holes: int = 0
    lost_messages: list[tuple[str, int]] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost + self.repeated + self.wrong_offset + self.wrong_payload + self.out_of_order + self.holes)


class Publisher:
    """One producer, over any number of connections."""

    def __init__(self, number: int, window: int) -> None:
        self.producer = f"{number + 1:016x}"
        self.window = window
        self.answered: dict[int, int] = {}
        self.answered_at: dict[int, float] = {}
        self.duplicates = 0
        self.refusals: Counter[str] = Counter()
        self.next = 0
        self.unanswered: deque[int] = deque()

    async def run(self, host: str, port: int, stop: asyncio.Event, most: int = 1 << 60) -> None:
        """Publish until told to stop, ``most`` are sent, or the connection is gone. Raises nothing of the broker's."""
        with contextlib.suppress(BrokerError):
            client = await BrokerClient.connect(host, port)
            try:
                await self._publish(client, stop, most)
            finally:
                await client.close()

    async def _publish(self, client: BrokerClient, stop: asyncio.Event, most: int) -> None:
        again, self.unanswered = list(self.unanswered), deque()
        todo = iter(again)
        waiting: deque[tuple[int, asyncio.Future[Published]]] = deque()
        left = list(again)
        try:
            while True:
                sequence = next(todo, None)
                if sequence is None:
                    if stop.is_set() or self.next >= most:
                        break
                    sequence, self.next = self.next, self.next + 1
                else:
                    left.pop(0)
                sent = client.publish(payload(self.producer, sequence), producer=self.producer, sequence=sequence)
                waiting.append((sequence, sent))
                if len(waiting) >= self.window:
                    await client.drain()
                    await self._answer(*waiting.popleft())
            while waiting:
                await self._answer(*waiting.popleft())
        finally:
            for sequence, sent in waiting:
                if sent.done() and not sent.cancelled() and sent.exception() is None:
                    self._take(sequence, sent.result())
                else:
                    sent.add_done_callback(_ignore)
                    self.unanswered.append(sequence)
            self.unanswered.extend(left)
            self.unanswered = deque(sorted(self.unanswered))

    async def _answer(self, sequence: int, sent: asyncio.Future[Published]) -> None:
        try:
            self._take(sequence, await sent)
        except BrokerError as error:
            self.unanswered.append(sequence)
            self.refusals[error.code] += 1
            if error.code in {"connection_lost", "shutting_down"}:
                raise

    def _take(self, sequence: int, answer: Published) -> None:
        self.answered[sequence] = answer.offset
        self.answered_at[sequence] = time.monotonic()
        self.duplicates += answer.duplicate


def _ignore(sent: asyncio.Future[Published]) -> None:
    if not sent.cancelled():
        sent.exception()


class Workload:
    """Several publishers at once."""

    def __init__(self, publishers: int = 4, window: int = 32) -> None:
        self.publishers = [Publisher(number, window) for number in range(publishers)]

    async def run(self, port: int, stop: asyncio.Event, most: int = 1 << 60) -> None:
        """Until told to stop, each has sent ``most``, or the broker is gone."""
        await asyncio.gather(*(one.run("127.0.0.1", port, stop, most) for one in self.publishers))

    async def finish(self, port: int) -> None:
        """Send again what was not answered."""
        done = asyncio.Event()
        done.set()
        await self.run(port, done)

    @property
    def duplicates(self) -> int:
        """Answers that said the message was there before."""
        return sum(one.duplicates for one in self.publishers)

    @property
    def refusals(self) -> Counter[str]:
        """Errors by code."""
        return sum((one.refusals for one in self.publishers), Counter())

    def answered_at(self, producer: str, sequence: int) -> float:
        """When an answered message was, on the monotonic clock."""
        return next(one.answered_at[sequence] for one in self.publishers if one.producer == producer)

    async def check(self, port: int) -> Verdict:
        """Read the log from its start and compare."""
        verdict = Verdict(answered=sum(len(one.answered) for one in self.publishers))
        found: dict[tuple[str, int], int] = {}
        newest: dict[str, int] = {}
        names = {key_of(publisher.producer): publisher.producer for publisher in self.publishers}
        expected = 0
        client = await BrokerClient.connect("127.0.0.1", port)
        await client.subscribe("checker", -2)
        while expected < client.welcome.next:
            for one in await client.receive():
                if not isinstance(one, Message):
                    verdict.holes += one.last - one.first + 1
                    expected = one.last + 1
                    continue
                key, _, number = one.message_id.partition(":")
                producer = names.get(key, key)
                sequence = int(number)
                verdict.records += 1
                verdict.holes += one.offset != expected
                expected = one.offset + 1
                if producer == NO_PRODUCER:
                    continue
                verdict.repeated += (producer, sequence) in found
                verdict.wrong_payload += one.payload != payload(producer, sequence)
                verdict.out_of_order += sequence < newest.get(producer, -1)
                newest[producer] = sequence
                found[producer, sequence] = one.offset
        await client.close()
        for publisher in self.publishers:
            for sequence, offset in publisher.answered.items():
                there = found.get((publisher.producer, sequence))
                if there is None:
                    verdict.lost += 1
                    verdict.lost_messages.append((publisher.producer, sequence))
                else:
                    verdict.wrong_offset += there != offset
        return verdict
