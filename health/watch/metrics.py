"""The watch's metrics for Prometheus: its lag, the judged readings, the open events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from health.watch.watcher import Watcher

_PREFIX = "gpu_telemetry_watch_"


class MonitoredWatcher:
    """A watch's state for /health and /metrics."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def stuck(self) -> list[str]:
        """Calls that hang."""
        return self._watcher.watch.stuck()

    def trouble(self) -> list[str]:
        """Partners that it waits for."""
        return self._watcher.trouble

    async def figures(self) -> list[Metric]:
        """Its metrics. The lag comes from the broker, and is left out while that is away."""
        lag = await self._watcher.lag()
        return list(_figures(self._watcher, lag))


def _figures(watcher: Watcher, lag: int | None) -> Iterator[Metric]:
    totals = watcher.totals
    yield CounterMetricFamily(_PREFIX + "messages", "Messages that were judged.", value=totals.messages)
    yield CounterMetricFamily(_PREFIX + "messages_unread", "Messages that are no batch.", value=totals.unread)
    yield CounterMetricFamily(
        _PREFIX + "messages_lost", "Messages that the log no longer had when they were due.", value=totals.lost
    )
    yield CounterMetricFamily(
        _PREFIX + "points_unjudged", "Points that could not be judged: a fault of the engine.", value=totals.unjudged
    )
    left_out = CounterMetricFamily(
        _PREFIX + "left_out",
        "Points, steps and XIDs that were not judged, since a message had more than any streamer sends.",
        labels=("reason",),
    )
    for reason, count in sorted(watcher.engine.left_out.items()):
        left_out.add_metric((reason,), count)
    yield left_out
    yield GaugeMetricFamily(_PREFIX + "readings_judged", "Readings judged so far.", value=float(watcher.engine.judged))
    steps = CounterMetricFamily(_PREFIX + "transitions", "Steps of events by kind.", labels=("kind",))
    for kind, count in sorted(totals.transitions.items()):
        steps.add_metric((kind,), count)
    yield steps
    events = GaugeMetricFamily(
        _PREFIX + "open_events", "Events that are not over, by rule and severity.", labels=("rule", "severity")
    )
    # The worker changes the book meanwhile: a list is taken of it at once.
    counts = Counter((each.key.rule, each.severity) for each in list(watcher.engine.book.events.values()))
    for by, count in sorted(counts.items()):
        events.add_metric(by, count)
    yield events
    yield GaugeMetricFamily(
        _PREFIX + "holds_lease", "1 while it judges; 0 while it waits for another.", value=float(watcher.holds_lease)
    )
    yield GaugeMetricFamily(
        _PREFIX + "committed_offset", "Offset up to which all is judged; -1: none yet.", value=float(watcher.committed)
    )
    if lag is not None:
        yield GaugeMetricFamily(_PREFIX + "lag_messages", "Messages in the log that are not judged.", value=float(lag))
    if totals.committed_at:
        yield GaugeMetricFamily(
            _PREFIX + "last_commit_timestamp_seconds", "When the last commit was made.", value=totals.committed_at
        )
