"""Where a broker is, and how to reach it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

from broker.client.client import BrokerClient


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """How to reach the broker. ``str()`` gives the name used in logs."""

    host: str
    port: int
    token: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def partner(self) -> str:
        """The broker's name at the start of log lines and errors."""
        return f"the broker at {self}"

    async def connect(self, client: str) -> BrokerClient:
        """Connect under the name ``client``. Raises BrokerError."""
        return await BrokerClient.connect(self.host, self.port, token=self.token, tls=self.tls, client=client)
