"""A streamer's way to the broker: connected again and again, as long as the broker may come back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from broker.backoff import backoff
from broker.client.client import BrokerClient
from broker.errors import BrokerError
from ingest.errors import BrokerRefusal
from ingest.outage import Outage, one_line

Connect = Callable[[], Awaitable[BrokerClient]]


class Uplink:
    """Whether there is a connection, and what was answered over all there have been. ``broker`` is what logs call it."""

    def __init__(self, connect: Connect, *, broker: str) -> None:
        self.batches_answered = 0
        self.readings_answered = 0
        self.connected = False
        self.partner = broker
        self._connect = connect
        self._outage = Outage(broker)

    @property
    def trouble(self) -> list[str]:
        """That the broker is away, and since when."""
        return self._outage.trouble

    def note_answered(self, readings: int) -> None:
        """The broker has one more batch, of so many readings: so it is there."""
        self.batches_answered += 1
        self.readings_answered += readings
        self._outage.end()

    async def run(self, serve: Callable[[BrokerClient], Awaitable[NoReturn]], idle: Callable[[], bool]) -> NoReturn:
        """Connect and ``serve``, until cancelled. With nothing to send (``idle``), a connection alone says that the broker is back.

        Raises BrokerRefusal when the broker will never take what we send.
        """
        waits = backoff()
        while True:
            answered = self.batches_answered
            try:
                client = await self._connect()
                try:
                    self.connected = True
                    if idle():
                        self._outage.end()
                    await serve(client)
                finally:
                    self.connected = False
                    await client.close()
            except BrokerError as error:
                if not error.retriable:
                    raise BrokerRefusal(f"{self.partner} refuses this streamer: {one_line(error)}") from error
                self._outage.begin(error)
            if self.batches_answered > answered:
                waits = backoff()
            await asyncio.sleep(next(waits))
