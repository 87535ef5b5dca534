"""Rolling restarts under load: nothing is lost, and the API answers all the time but while it is itself restarted.

    python -m tests.deploy.restarts [--rounds 50] [--seed N]

A round restarts web service, broker, collector and streamer once each, in random order, as an orchestrator does: SIGTERM, the
end, the next start, and on when it is ready. Meanwhile the streamer sends a capture again and again, and clients ask the
API. At the end the store has to hold every reading once.
"""

from __future__ import annotations

import argparse
import http.client
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from broker.client.client import fetch_stats
from stores.sqlite import SqliteStore
from tests.ingest.captures import Reading, readings_in, stored_readings, write_capture
from tests.ingest.processes import Fleet, Service, all_committed, wait_until
from tests.ports import free_port

logger = logging.getLogger(__name__)

PATHS = (
    "/health",
    "/ready",
    "/api/v1/gpus",
    "/api/v1/hosts",
    "/api/v1/telemetry?page_size=50",
    "/api/v1/stats",
    "/metrics",
)
CLIENTS = 2
PAUSE = 0.05  # seconds between two questions of a client: other processes need the processors too
# Readings a second; the streamer is stopped and started all the time, so what it sends matters less than that it sends.
RATE = 100


@dataclass
class Load:
    """Clients of the API, each with its own connection for every question."""

    url: str
    answers: Counter[int] = field(default_factory=Counter)
    # Statuses and kinds of failure by whether the web service was being restarted.
    unanswered: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    restarting: bool = True
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Ask from now on."""
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        while not self._stop.wait(PAUSE):
            path = PATHS[number % len(PATHS)]
            number += 1
            before = self.restarting
            kind = ""
            try:
                with urllib.request.urlopen(self.url + path, timeout=30) as answer:
                    answer.read()
                    status = answer.status
            except urllib.error.HTTPError as error:
                with error:
                    status, kind = error.code, error.read()[:200].decode(errors="replace")
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                status, kind = 0, type(reason).__name__
            # Asked before and answered after the restart counts as meanwhile.
            meanwhile = before or self.restarting
            if status:
                self.answers[status] += 1
            else:
                self.unanswered[kind] += 1
            if status != 200 and not (meanwhile and status in {0, 503}):
                self.bad.append(f"{path}: {status or ''} {kind} (restarting: {meanwhile})")


@dataclass
class Outcome:
    """What is left of a run after all restarts."""

    expected: set[Reading]
    load: Load
    restarts: Counter[str] = field(default_factory=Counter)
    longest_stop: dict[str, float] = field(default_factory=dict)
    exits: Counter[int] = field(default_factory=Counter)
    stored: list[Reading] = field(default_factory=list)
    messages: int = 0
    seconds: float = 0.0

    @property
    def lost(self) -> int:
        return len(self.expected - set(self.stored))

    @property
    def twice(self) -> int:
        return len(self.stored) - len(set(self.stored))

    @property
    def foreign(self) -> int:
        return len(set(self.stored) - self.expected)

    @property
    def good(self) -> bool:
        """All stored once, every end with status 0, and no answer that should not have been."""
        return not (self.lost or self.twice or self.foreign or self.load.bad) and set(self.exits) == {0}

    def __str__(self) -> str:
        stops = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in sorted(self.longest_stop.items()))
        return (
            f"restarts: {', '.join(f'{name} {count}' for name, count in sorted(self.restarts.items()))}; {self.seconds:.0f} s\n"
            f"exit statuses: {dict(self.exits)}; longest time to stop: {stops}\n"
            f"API: {dict(sorted(self.load.answers.items()))} by status; not answered while it was restarted: {dict(self.load.unanswered)}; "
            f"not allowed: {len(self.load.bad)} {self.load.bad[:5]}\n"
            f"capture: {len(self.expected)} readings; {self.messages} messages in the log; stored: {len(self.stored)}; "
            f"lost: {self.lost}; twice: {self.twice}; not in the capture: {self.foreign}\n"
            f"{'good' if self.good else 'BAD'}"
        )


def run(state_dir: Path, rounds: int, chance: random.Random) -> Outcome:
    """Restart each service ``rounds`` times; DATABASE_URL is taken over if it is set."""
    capture = write_capture(state_dir.with_suffix(".csv"), gpus=40, samples=max(4, rounds))
    port = free_port()
    environ = {"DATABASE_URL": os.environ["DATABASE_URL"]} if "DATABASE_URL" in os.environ else {}
    fleet = Fleet(state_dir, CSV_PATH=capture, RATE=RATE, BATCH_SIZE=20, PORT=port, WEB_CONCURRENCY=2, **environ)
    fleet.migrate()
    web = Service("web", fleet, "serve")
    services = [fleet.broker, fleet.collector, web, fleet.streamer]
    outcome = Outcome(readings_in(capture), Load(f"http://127.0.0.1:{port}"))
    began = time.monotonic()
    try:
        for service in services:
            service.start()
        _wait_until_ready(fleet, web, outcome.load)
        outcome.load.start()
        for number in range(rounds):
            for service in chance.sample(services, len(services)):
                time.sleep(chance.uniform(0.1, 0.5))
                _restart(service, fleet, web, outcome)
            logger.info("round %d of %d done", number + 1, rounds)
        outcome.load.stop()
        # The rest of the capture at once: what counts is that all of it is there in the end.
        if fleet.streamer.returncode is None:
            _end(fleet.streamer, outcome)
        fleet.streamer.start("--rate", "0")
        outcome.exits[fleet.streamer.wait(600)] += 1
        wait_until(lambda: all_committed(fleet), "the collector to commit all", 120)
        outcome.messages = fetch_stats("127.0.0.1", fleet.port)["total_messages"]
        for service in (web, fleet.collector, fleet.broker):
            _end(service, outcome)
    finally:
        outcome.load.stop()
        web.kill()
        fleet.kill_all()
    outcome.seconds = time.monotonic() - began
    store = SqliteStore(state_dir / "readings.sqlite3")
    try:
        outcome.stored = stored_readings(store)
    finally:
        store.close()
    return outcome


def _restart(service: Service, fleet: Fleet, web: Service, outcome: Outcome) -> None:
    if service.returncode is None:
        if service is web:
            outcome.load.restarting = True
        _end(service, outcome)
    elif service is fleet.streamer and service.returncode == 0:
        outcome.exits[0] += (
            1  # it came to the capture's end: once more from its start, which changes nothing in the store
        )
    else:
        raise RuntimeError(f"{service.name} ended by itself with {service.returncode}: {service.log[-2000:]}")
    service.start()
    outcome.restarts[service.name] += 1
    _wait_until_ready(fleet, web, outcome.load)


def _end(service: Service, outcome: Outcome) -> None:
    status, seconds = service.stop()
    if status == -signal.SIGTERM and "done: " in service.log.splitlines()[-1]:
        status = 0  # it had come to the capture's end, and let go of its signals, in the moment before
    outcome.exits[status] += 1
    outcome.longest_stop[service.name] = max(seconds, outcome.longest_stop.get(service.name, 0.0))
    if status != 0:
        raise RuntimeError(f"{service.name} ended with {status}: {service.log[-2000:]}")


def _wait_until_ready(fleet: Fleet, web: Service, load: Load) -> None:
    """Until each that was started does its work again: the next may go then, as in a rolling update."""
    wait_until(lambda: _is_ready(f"{load.url}/ready"), "the web service to be ready")
    load.restarting = False
    wait_until(lambda: _is_ready(f"http://127.0.0.1:{fleet.http_port}/health"), "the broker to be healthy")
    fleet.collector.wait_for("subscribed as ")
    fleet.streamer.wait_for("streaming ")
    for service in (fleet.broker, fleet.collector, web):
        if service.returncode is not None:
            raise RuntimeError(f"{service.name} ended by itself with {service.returncode}: {service.log[-2000:]}")


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def main() -> int:
    """Run the rounds, print the figures; exit status 0 when all is good."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory(prefix="restarts-") as folder:
        outcome = run(Path(folder) / "state", options.rounds, random.Random(seed))
    sys.stdout.write(f"seed {seed}\n{outcome}\n")
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
