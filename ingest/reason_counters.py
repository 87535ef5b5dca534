"""Counters of readings that were turned away, remarked or passed over, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, Metric

from readings.checks import Kinds


def counters_by_kind(prefix: str, counts: Mapping[str, int]) -> Iterator[Metric]:
    """A counter for each kind of reason, with one value for each reason."""
    kinds = Kinds.of(counts)
    yield _by_reason(prefix + "readings_refused", "Readings, rows and messages that were turned away.", kinds.refused)
    yield _by_reason(prefix + "readings_remarked", "Readings taken without something they do not need.", kinds.remarks)
    yield _by_reason(prefix + "readings_passed_over", "Rows that are by design no readings.", kinds.passed_over)


def _by_reason(name: str, text: str, counts: Mapping[str, int]) -> Metric:
    metric = CounterMetricFamily(name, text, labels=("reason",))
    for reason, count in sorted(counts.items()):
        metric.add_metric((reason,), count)
    return metric
