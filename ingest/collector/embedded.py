"""The collector inside the web process, for STORAGE_TYPE=memory: what it stores lives and dies with that process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from dataclasses import replace

from ingest.collector.collector import CollectConfig, Collector
from ingest.config import collect_config
from ingest.errors import IngestError
from stores.base import Store, StoreError
from stores.open import get_store

logger = logging.getLogger(__name__)

EARLIEST = -2
STOP_SECONDS = 9.0


class EmbeddedCollector:
    """A collector with a thread and an event loop of its own."""

    def __init__(self, config: CollectConfig, store: Store) -> None:
        self._config = config
        self._store = store
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="embedded-collector", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether its thread lives."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Flush, commit and end; waits for that, for some seconds at most."""
        with contextlib.suppress(RuntimeError):  # its loop is closed: it has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(Collector(self._config, self._store, self._stop).run())
        except (IngestError, StoreError) as error:
            logger.error("the embedded collector ended: %s", error)
        except Exception:
            logger.exception("the embedded collector ended")


_lock = threading.Lock()
_collector: EmbeddedCollector | None = None


def start_embedded_collector() -> None:
    """Start this process's collector into stores.open.get_store(), unless it runs. Call it after a fork, not before."""
    global _collector
    with _lock:
        if _collector is not None and _collector.running:
            return
        config = collect_config()
        if config.start_offset is None:
            # The store is empty whenever the process starts: a commit says what an earlier one had.
            config = replace(config, start_offset=EARLIEST)
        _collector = EmbeddedCollector(config, get_store())


def stop_embedded_collector() -> None:
    """Stop it, if it runs: flush, commit, disconnect."""
    global _collector
    with _lock:
        if _collector is not None:
            _collector.stop()
            _collector = None
