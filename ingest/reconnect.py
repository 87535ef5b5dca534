"""A streamer's way to the broker: connected again and again, as long as the broker may come back."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NoReturn

from broker.backoff import backoff
from broker.client.client import BrokerClient
from broker.errors import BrokerError, BrokerUnavailable, ConnectionLost
from ingest.errors import BrokerRefusal
from readings.times import spell_duration

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """The broker as streamers, collectors and commands reach it. Its text is what logs call it."""

    host: str
    port: int
    token: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def partner(self) -> str:
        """How messages about its absence begin."""
        return f"the broker at {self}"

    async def connect(self, client: str) -> BrokerClient:
        """Connect under the name ``client``. Raises BrokerError."""
        return await BrokerClient.connect(self.host, self.port, token=self.token, tls=self.tls, client=client)


class Outage:
    """The state of one partner (the broker, the store, the database) as told in the log."""

    def __init__(self, partner: str) -> None:
        self.partner = partner
        self._kind = ""
        self._text = ""
        self._since = 0.0

    @property
    def trouble(self) -> list[str]:
        """What is wrong and since when, as one text; none while all is well."""
        if not self._kind:
            return []
        return [f"{self.partner}: {self._text}, for {spell_duration(time.monotonic() - self._since)}"]

    def begin(self, error: Exception) -> None:
        """Say what is wrong, unless it is the same kind of trouble as before."""
        # A connection that breaks and one that cannot be made again are the same trouble.
        kind = "away" if isinstance(error, (BrokerUnavailable, ConnectionLost)) else type(error).__name__
        self._text = one_line(error)
        if not self._kind:
            self._since = time.monotonic()
        if kind != self._kind:
            self._kind = kind
            logger.warning(
                "%(partner)s: %(trouble)s: waiting, and going on when it is back",
                {"partner": self.partner, "trouble": self._text},
            )

    def end(self) -> None:
        """Say that the partner is back, if it was away."""
        if self._kind:
            self._kind = ""
            logger.info(
                "%(partner)s is back after %(duration)s",
                {"partner": self.partner, "duration": spell_duration(time.monotonic() - self._since)},
            )


def one_line(error: BaseException) -> str:
    """An error's text on one line; its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


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
