"""Where the broker is, and what it takes to be let in."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

from broker.client.client import BrokerClient


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
