"""The collector inside the web process, for STORAGE_TYPE=memory: the stored readings are lost when that process ends."""

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
ID_SUFFIX = "-in-memory"
STOP_SECONDS = 9.0


class EmbeddedCollector:
    """A collector in its own thread, with its own event loop."""

    def __init__(self, config: CollectConfig, store: Store) -> None:
        self._config = config
        self._store = store
        self._stop = asyncio.Event()
        self.trouble = ""  # why it ended by itself
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="embedded-collector", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether its thread is alive."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Flush, commit and end. Waits for STOP_SECONDS at most."""
        with contextlib.suppress(RuntimeError):  # its loop is closed: it has ended already
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(Collector(self._config, self._store, self._stop).run())
        except (IngestError, StoreError) as error:
            logger.error("the embedded collector ended: %s", error)
            self.trouble = "ended: the log says why"
        except Exception:
            logger.exception("the embedded collector ended")
            self.trouble = "ended: the log says why"


_lock = threading.Lock()
_collector: EmbeddedCollector | None = None


def start_embedded_collector() -> None:
    """Start this process's collector on get_store(), unless it is running. Call this after a fork, not before."""
    global _collector
    with _lock:
        if _collector is not None and _collector.running:
            return
        config = collect_config()
        # An id of its own, since a collector for another store may be there.
        config = replace(config, collector_id=f"{config.collector_id}{ID_SUFFIX}")
        if config.start_offset is None:
            # The store is empty at every start: the last commit was for an earlier one.
            config = replace(config, start_offset=EARLIEST)
        _collector = EmbeddedCollector(config, get_store())


def embedded_trouble() -> str:
    """Why this process's collector ended by itself; empty while it runs."""
    with _lock:
        return "" if _collector is None else _collector.trouble


def stop_embedded_collector() -> None:
    """Stop the collector, if it is running: flush, commit, disconnect."""
    global _collector
    with _lock:
        if _collector is not None:
            _collector.stop()
            _collector = None
