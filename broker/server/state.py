"""What the broker's parts share: the log, the configuration, the counters and the connected sessions."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from broker.log.log import Log
from broker.protocol.connection import ConnectionLimits, Publish
from broker.server.bursts import BurstLog
from broker.server.committer import Committer
from broker.server.delivery import Delivery
from broker.server.figures import CachedFigures
from broker.server.places import ConnectionPlaces
from broker.server.worker import Worker

logger = logging.getLogger(__name__)

AnySession = TypeVar("AnySession")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """The broker's settings. Times in seconds, sizes in bytes; port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 9000
    http_host: str = "127.0.0.1"
    http_port: int = 9001
    http_token: str = ""  # required for /stats and /metrics
    tls: ssl.SSLContext | None = None
    http_tls: ssl.SSLContext | None = None
    fsync: str = "always"
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    max_connections: int = 2000
    max_strangers: int = 64  # connections that have not sent the token yet
    http_connections: int = 128
    in_flight_messages: int = 1024
    in_flight_bytes: int = 32 << 20
    ingest_bytes: int = 256 << 20  # unwritten messages of all connections
    partial_bytes: int = 128 << 20  # unfinished frames of all connections
    unread_bytes: int = 64 << 20  # answers that clients do not take
    take_answer_s: float = 30.0  # a client that takes none of its answers for this long is dropped
    tick_s: float = 1.0
    stall_s: float = 300.0  # a plain peer whose TCP makes no progress for this long is dropped
    answer_s: float = 3.0  # at a stop: time to write and answer what was received
    flush_s: float = 5.0  # at a stop: time for peers to take what was written to them


@dataclass(slots=True)
class Counters:
    """What has happened since the start."""

    answered: int = 0  # publishes answered with success, including duplicates
    duplicates: int = 0
    refused: int = 0  # publishes answered with an error of the log
    bad_requests: int = 0
    turned_away: int = 0  # connections over a limit
    restores: int = 0  # subscribers that had read another log
    dead: int = 0  # peers dropped because nothing was heard from them
    errors: Counter[str] = field(default_factory=Counter)  # answers, by code
    # Messages that retention dropped before the subscriber had them, by its id.
    missed: Counter[str] = field(default_factory=Counter)


class BrokerState(Generic[AnySession]):
    """The state of a running broker. The server fills in the parts below when it starts."""

    failed: asyncio.Future[BaseException]
    writer: Worker
    reader: Worker
    places: ConnectionPlaces
    figures: CachedFigures[bytes]
    committer: Committer[Publish]
    delivery: Delivery

    def __init__(self, log: Log, config: ServerConfig) -> None:
        self.log = log
        self.config = config
        self.counters = Counters()
        self.started = time.monotonic()
        self.stopping = False
        self.connections: set[AnySession] = set()
        self.partial_bytes = 0
        self.unread: set[AnySession] = set()  # those whose sockets take no more
        self.lines = BurstLog(logger)
        self.loop_lag = 0.0

    def refusal_told(self) -> None:
        """A connection without a place has ended."""

    def over_budget(self) -> bool:
        """Whether all connections together hold more unwritten messages than allowed."""
        return self.committer.bytes > self.config.ingest_bytes
