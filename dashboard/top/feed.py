"""Where ``manage.py top`` gets the fleet from: this machine's own database, or a web service over its API."""

from __future__ import annotations

import gzip
import ssl
import time
import urllib.error
import urllib.request
from email.message import Message
from http.client import HTTPException
from typing import IO, Protocol, TypeVar

import msgspec
import numpy as np
from django.db import DatabaseError

from api.fleet import fleet_answer
from api.views.stats import ask_broker, read_collectors, reading_counts
from dashboard.event_rows import EventRows
from health.models import Severity
from health.queries import ongoing_events
from inventory.fleet import fleet_now
from readings.mig import UTILISATION
from readings.text import printable
from readings.times import format_time, parse_time, to_ns

T = TypeVar("T")

TIMEOUT_SECONDS = 10.0
MOST_EVENTS = 200
_SERIOUS = f"/api/v1/events?state=ongoing&severity=critical&severity=warning&quiet=false&page_size={MOST_EVENTS}"


class FeedError(Exception):
    """The fleet could not be read. The text is one line."""


class Counts(msgspec.Struct):
    """How many hosts and GPUs there are: see FleetCountsAnswer."""

    hosts: int
    gpus: int
    expected: int
    reporting: int
    stale: int
    missing: int
    maintenance: int
    idle: int
    idle_held: int
    idle_hosts: int
    at_full: int


class Totals(msgspec.Struct):
    """Means and sums over the GPUs that report: see FleetTotalsAnswer."""

    utilisation_mean: float | None
    utilisation_p95: float | None
    memory_used_mib: float | None
    memory_total_mib: float | None
    power_watts: float | None
    idle_power_watts: float | None


class HostRow(msgspec.Struct):
    """A host's name; how many slots it has is in the columns."""

    name: str


class GpuColumns(msgspec.Struct):
    """The slots, column by column: see FleetGpusAnswer."""

    host: list[int]
    slot: list[int]
    id: list[str]
    state: list[int]
    namespace: list[int]
    pod: list[int]
    utilisation: list[float | None]
    temperature: list[float | None]
    power: list[float | None]
    memory_used: list[float | None]
    memory_total: list[float | None]
    mark: list[int] = []


class EventCounts(msgspec.Struct):
    """Ongoing events by severity."""

    critical: int = 0
    warning: int = 0
    info: int = 0


class OngoingEvents(msgspec.Struct):
    """What is shown of ``/api/v1/events``."""

    data: list[EventNow]


class EventNow(msgspec.Struct):
    """An ongoing event: see EventAnswer. ``slot`` is null where it is about none."""

    rule: str
    title: str
    severity: str
    hostname: str
    slot: int | None
    opened: str
    summary: str


class FleetNow(msgspec.Struct):
    """What is shown of ``/api/v1/fleet``. Fields that a newer service adds are passed over."""

    newest: str | None
    live: bool
    counts: Counts
    totals: Totals
    hosts: list[HostRow]
    namespaces: list[str]
    pods: list[str]
    gpus: GpuColumns
    events: EventCounts = msgspec.field(default_factory=EventCounts)


class Broker(msgspec.Struct):
    """Whether the broker answers, and why not."""

    available: bool
    error: str | None


class Subscriber(msgspec.Struct):
    """A subscriber as the broker knows it. ``lag`` is in messages. ``judges``: it is the watch, and no collector."""

    id: str
    lag: int | None
    connected: bool
    judges: bool = False


class ReadingCounts(msgspec.Struct):
    """Readings stored, and refused by reason."""

    stored: int
    refused: dict[str, int]


class StoreNow(msgspec.Struct):
    """The age of the newest reading by the clock of the machine that answers."""

    newest_age_seconds: float | None


class PipelineNow(msgspec.Struct):
    """What is shown of ``/api/v1/stats``."""

    broker: Broker
    subscribers: list[Subscriber]
    readings: ReadingCounts
    store: StoreNow


class Snapshot(msgspec.Struct):
    """The fleet at one moment; the pipeline too, or why it is not known."""

    fleet: FleetNow
    pipeline: PipelineNow | None
    pipeline_error: str = ""
    events: list[EventNow] = []


class Feed(Protocol):
    """A source of snapshots. ``name`` is where they come from, safe to show."""

    name: str

    def read(self) -> Snapshot:
        """The fleet now. Raises FeedError."""


class LocalFeed:
    """Reads Django's database, and asks the broker, as the web service does."""

    name = "this machine"

    def read(self) -> Snapshot:
        """The fleet now. Raises FeedError."""
        try:
            fleet = fleet_now()
            answer = fleet_answer(fleet, UTILISATION, np.ones(len(fleet), np.bool_))
            counts = reading_counts(read_collectors())
            events = _events_here()
        except DatabaseError as error:
            raise FeedError(
                f"there is no inventory to read here ({_one_line(error)}): start the pipeline with make run, or name"
                " a web service with --url"
            ) from error
        broker, subscribers = ask_broker()
        age = None if answer.newest is None else (time.time_ns() - parse_time(answer.newest)) / 1e9
        pipeline = PipelineNow(
            _converted(broker, Broker),
            [_converted(each, Subscriber) for each in subscribers],
            _converted(counts, ReadingCounts),
            StoreNow(age),
        )
        return Snapshot(_converted(answer, FleetNow), pipeline, events=events)


class ApiFeed:
    """Asks a web service. ``token`` may be empty; ``ca`` is a PEM file, or empty for the system's. Raises FeedError."""

    def __init__(self, url: str, token: str = "", ca: str = "") -> None:
        self.name = printable(url)
        self._url = url
        self._headers = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "gpu-telemetry-top"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        try:
            context = ssl.create_default_context(cafile=ca or None)
        except OSError as error:
            raise FeedError(
                f"API_TLS_CA (--tls-ca): {printable(ca)!r} is not a file of certificates: {error}"
            ) from None
        self._opener = urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=context))

    def read(self) -> Snapshot:
        """The fleet now. Raises FeedError."""
        fleet = self._get("/api/v1/fleet", FleetNow)
        # A service that is older has no events: then the fleet counts none either.
        events = self._get(_SERIOUS, OngoingEvents).data if fleet.events.critical + fleet.events.warning else []
        try:
            return Snapshot(fleet, self._get("/api/v1/stats", PipelineNow), events=events)
        except FeedError as error:  # the store is away: the fleet is known all the same
            return Snapshot(fleet, None, str(error), events)

    def _get(self, path: str, answer: type[T]) -> T:
        request = urllib.request.Request(self._url + path, headers=self._headers)  # noqa: S310 - the setting takes http and https alone
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as response:
                body = response.read()
                if response.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
            return msgspec.json.decode(body, type=answer)
        except urllib.error.HTTPError as error:
            with error:
                raise FeedError(f"{self.name} {_refusal(error)}") from None
        except (msgspec.MsgspecError, EOFError, gzip.BadGzipFile):
            raise FeedError(f"{self.name} is not the web service of this pipeline: {path} has another form") from None
        except (OSError, HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise FeedError(f"{self.name} does not answer: {_one_line(reason)}") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A token goes to the address that was given, and to no other."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


class _Error(msgspec.Struct):
    message: str


def _refusal(error: urllib.error.HTTPError) -> str:
    """What an error status means, in words."""
    if error.code == 401:
        return "asks for a valid token: set API_TOKEN, or API_TOKEN_FILE to a file that holds it"
    if location := error.headers.get("Location"):
        return f"leads to {printable(location)}: use that address"
    try:
        said = msgspec.json.decode(error.read(65536), type=_Error).message
    except (msgspec.MsgspecError, OSError, HTTPException):
        said = "no web service of this pipeline is there" if error.code == 404 else "it says nothing more"
    return f"answers with status {error.code}: {_one_line(said)}"


def _events_here() -> list[EventNow]:
    """The ongoing events above info, of this machine's own database. Raises DatabaseError."""
    rows = EventRows().rows(event for event in ongoing_events()[:MOST_EVENTS] if event.severity != Severity.INFO)
    return [
        EventNow(
            rule=row.event.rule,
            title=row.title,
            severity=row.event.severity,
            hostname=row.event.hostname,
            slot=row.event.slot,
            opened=format_time(to_ns(row.event.opened)),
            summary=row.event.summary,
        )
        for row in rows
    ]


def _converted(answer: msgspec.Struct, form: type[T]) -> T:
    return msgspec.convert(answer, form, from_attributes=True)


def _one_line(reason: object) -> str:
    return printable(" ".join(str(reason).split())) or type(reason).__name__
