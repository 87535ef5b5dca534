"""Readings that do not come: GPUs whose samples are lost, and metrics that vanish while others are there."""

from __future__ import annotations

from collections import defaultdict

import msgspec
import numpy as np

from health.engine.book import Book
from health.engine.events import Entity, EntityPlace, Key
from health.engine.facts import Facts
from health.engine.intake import Arrivals, NewestTable
from health.engine.places import FleetLayout, FleetPlaces, place_of
from health.engine.registry import Mask, Registry
from health.rules.model import Rule, Rules
from readings.times import SECOND

BUCKET_NS = 300 * SECOND
# A source whose GPUs have fewer samples in a bucket says nothing about losses.
_FEWEST_SAMPLES = 3
# A clock that jumps is not followed bucket by bucket.
_MOST_BUCKETS = 24


class SamplingState(msgspec.Struct):
    """The stored state of a SamplingJudge. Arrays are by row of the registry, and by metric where they have two sizes."""

    bucket: int
    rows: int
    metrics: int
    counts: bytes
    shares: bytes
    known: bytes
    present: bytes
    absent: bytes
    back: list[tuple[Key, int]] = []


class SamplingJudge:
    """Counts samples in buckets of five minutes, and judges when one is over."""

    def __init__(self, rules: Rules, registry: Registry, table: NewestTable, places: FleetPlaces, book: Book) -> None:
        self._rules = rules
        self._registry = registry
        self._table = table
        self._places = places
        self._book = book
        self._bucket = 0
        loss, vanished = rules["sample_loss"], rules["metric_vanished"]
        self._buckets = max(1, int(loss.settings["window_s"] * SECOND // BUCKET_NS))
        self._history = max(1, int(vanished.settings["history_s"] * SECOND // BUCKET_NS))
        self._absent_for = max(1, int(vanished.settings["absent_s"] * SECOND // BUCKET_NS))
        self._counts = np.zeros(0, np.int32)
        # Of each bucket of the window, the share of the samples that others of the source had; NaN without any sample.
        self._shares = np.full((self._buckets, 0), np.nan, np.float32)
        self._known = np.zeros(0, np.int32)
        self._present = np.zeros((0, 0), np.float32)
        self._absent = np.zeros((0, 0), np.int16)
        # When a metric that had vanished was there again for the first time.
        self._back: dict[Key, int] = {}

    def take(self, arrivals: Arrivals, live: bool) -> None:
        """Count the samples of a live source."""
        if not live or not len(arrivals):
            return
        self._fit()
        np.add.at(self._counts, arrivals.rows[arrivals.times_ns > arrivals.newest_ns], 1)

    def tick(self, now_ns: int, facts: Facts) -> None:
        """Judge the buckets that are over."""
        bucket = now_ns // BUCKET_NS
        if not self._bucket or bucket - self._bucket > _MOST_BUCKETS:
            self._bucket = bucket
            self._counts[:] = 0
            return
        while self._bucket < bucket:
            self._fit()
            self._close_bucket((self._bucket + 1) * BUCKET_NS, facts)
            self._bucket += 1
        self._close_returned()

    def _fit(self) -> None:
        rows, metrics = self._registry.capacity, len(self._table.columns)
        more = rows - len(self._counts)
        if more > 0:
            self._counts = np.concatenate([self._counts, np.zeros(more, np.int32)])
            self._known = np.concatenate([self._known, np.zeros(more, np.int32)])
            self._shares = np.concatenate([self._shares, np.full((self._buckets, more), np.nan, np.float32)], axis=1)
        if self._present.shape != (metrics, rows):
            have = self._present.shape
            present, absent = np.zeros((metrics, rows), np.float32), np.zeros((metrics, rows), np.int16)
            present[: have[0], : have[1]], absent[: have[0], : have[1]] = self._present, self._absent
            self._present, self._absent = present, absent

    def _close_bucket(self, end_ns: int, facts: Facts) -> None:
        layout = self._places.layout(facts)
        count = len(self._registry)
        samples = self._counts[:count]
        share = np.full(len(self._counts), np.nan, np.float32)
        live = layout.live[layout.host] if len(layout.rows) else np.zeros(0, np.bool_)
        source = layout.of_source[layout.host] if len(layout.rows) else layout.rows
        by_source = np.argsort(source, kind="stable")
        starts = np.searchsorted(source[by_source], np.arange(len(layout.sources) + 1)).tolist()
        for number in range(len(layout.sources)):
            of_source = by_source[starts[number] : starts[number + 1]]
            rows = layout.rows[of_source[live[of_source]]]
            rows = rows[samples[rows] > 0]
            usual = float(np.median(samples[rows])) if len(rows) else 0.0
            if usual >= _FEWEST_SAMPLES:
                share[rows] = np.minimum(1.0, samples[rows] / usual)
        self._shares[(end_ns // BUCKET_NS) % self._buckets] = share
        self._judge_losses(layout, end_ns, facts)
        self._judge_metrics(layout, end_ns, live, facts)
        self._counts[:] = 0

    # Samples.

    def _judge_losses(self, layout: FleetLayout, end_ns: int, facts: Facts) -> None:
        rule = self._rule("sample_loss")
        if rule is None or not len(layout.rows):
            return
        shares = self._shares[:, layout.rows]
        heard = (~np.isnan(shares)).sum(axis=0)
        # A bucket without any sample is an outage, which other rules see.
        whole = heard >= max(1, self._buckets - 2)
        mean = np.nansum(shares, axis=0) / np.maximum(heard, 1)
        for at in np.flatnonzero(whole).tolist():
            row = int(layout.rows[at])
            gpu = self._registry.gpus[row]
            key = Key(rule.name, Entity("gpu", gpu.id))
            if self._book.opened_ns(key) is not None:
                if mean[at] >= rule.settings["clear_share"]:
                    self._book.close(key, end_ns, "its samples come again")
                elif key in self._book.events:
                    self._book.hold(key, end_ns)
            elif mean[at] < rule.settings["share"] and not self._is_excused(row, facts):
                values: dict[str, float | str] = {"value": round(100 * float(mean[at]), 1)}
                self._book.open(key, end_ns, rule.severity, place_of(self._registry, row), values)

    # Metrics.

    def _judge_metrics(self, layout: FleetLayout, end_ns: int, live: Mask, facts: Facts) -> None:
        rule = self._rule("metric_vanished")
        count = len(self._registry)
        heard = np.zeros(len(self._counts), np.bool_)
        heard[layout.rows[live]] = self._counts[layout.rows[live]] >= _FEWEST_SAMPLES
        heard[count:] = False
        metrics = len(self._table.columns)
        if not heard.any() or not metrics:
            return
        times = self._table.times_ns[:metrics, : len(heard)]
        newest = np.zeros(len(heard), np.int64)
        newest[:count] = self._registry.last_ns
        there = times > newest - BUCKET_NS
        self._known[heard] += 1
        settled = np.minimum(self._known, self._history)
        pending = ~there & (self._absent < self._absent_for)
        self._absent = np.where(heard, np.where(there, 0, np.minimum(self._absent + 1, 30_000)), self._absent).astype(
            np.int16
        )
        vanished = heard & ~there & (self._absent == self._absent_for)
        vanished &= (self._present >= (rule.settings["share"] if rule else 1)) & (settled >= self._buckets)
        weight = np.where(heard & ~pending, 1.0 / np.maximum(settled, 1), 0.0).astype(np.float32)
        self._present += (there - self._present) * weight
        if rule is not None and vanished.any():
            for name, number in self._table.columns.items():
                if ":" not in name and vanished[number].any():
                    self._say_vanished(rule, layout, name, vanished[number], heard, end_ns, facts)

    def _say_vanished(
        self, rule: Rule, layout: FleetLayout, metric: str, vanished: Mask, heard: Mask, end_ns: int, facts: Facts
    ) -> None:
        """One event for a GPU, its host or the whole source, by how many lost the metric at once."""
        of_host: dict[int, list[int]] = defaultdict(list)
        for row, host in zip(layout.rows.tolist(), layout.host.tolist(), strict=True):
            if vanished[row] and not self._is_excused(row, facts):
                of_host[host].append(row)
        heard_on = np.bincount(layout.host, heard[layout.rows], len(layout.hosts)).astype(np.int64)
        whole = {host for host, rows in of_host.items() if len(rows) > 1 and len(rows) == heard_on[host]}
        of_source: dict[int, set[int]] = defaultdict(set)
        for host in whole:
            of_source[int(layout.of_source[host])].add(host)
        since_ns = end_ns - self._absent_for * BUCKET_NS
        values: dict[str, float | str] = {"metric": metric, "value": (end_ns - since_ns) / SECOND}
        hosts_heard = np.bincount(layout.of_source, heard_on > 0, len(layout.sources))
        for number, hosts in sorted(of_source.items()):
            if len(hosts) > 1 and len(hosts) >= rule.settings["share"] * hosts_heard[number]:
                self._open(
                    rule, Entity("source", layout.sources[number]), metric, end_ns, "warning", EntityPlace(), values
                )
                for host in hosts:
                    del of_host[host]
        for host, rows in sorted(of_host.items()):
            if host in whole:
                name = layout.hosts[host]
                place = EntityPlace(name)
                self._open(rule, Entity("host", name), metric, end_ns, "warning", place, values)
                continue
            for row in rows:
                entity = Entity("gpu", self._registry.gpus[row].id)
                self._open(rule, entity, metric, end_ns, "info", place_of(self._registry, row), values)

    def _open(
        self,
        rule: Rule,
        entity: Entity,
        metric: str,
        at_ns: int,
        severity: str,
        place: EntityPlace,
        values: dict[str, float | str],
    ) -> None:
        self._book.open(Key(rule.name, entity, metric), at_ns, severity, place, values)

    def _close_returned(self) -> None:
        """A metric that has come again three times is back."""
        for key in [key for kind in ("gpu", "host", "source") for key in self._book.keys_of("metric_vanished", kind)]:
            column = self._table.columns.get(key.subject)
            if column is None:
                continue
            rows = self._rows_of(key.entity)
            if not len(rows):
                continue
            since = self._book.opened_ns(key) or 0
            times = self._table.times_ns[column, rows]
            newest = int(times.max())
            if 2 * int((times > since).sum()) >= len(rows):
                first = self._back.setdefault(key, newest)
                if newest - first >= 2 * max(int(self._registry.step_ns[rows].max()), 1):
                    del self._back[key]
                    self._book.close(key, newest, "it is there again")
            elif key in self._book.events:
                self._book.hold(key, int(self._registry.last_ns[rows].max()))
        if self._back:
            self._back = {key: first for key, first in self._back.items() if self._book.opened_ns(key) is not None}

    def _rows_of(self, entity: Entity) -> list[int]:
        registry = self._registry
        if entity.kind == "gpu":
            row = registry.row_of.get(entity.id)
            return [] if row is None else [row]
        if entity.kind == "host":
            return [row for row in registry.by_host.get(entity.id, ()) if not registry.gpus[row].mig_id]
        return [row for row, gpu in enumerate(registry.gpus) if gpu.source == entity.id and not gpu.mig_id]

    def _is_excused(self, row: int, facts: Facts) -> bool:
        gpu = self._registry.gpus[row]
        return gpu.id in facts.excused_gpus or gpu.hostname in facts.excused_hosts

    def _rule(self, name: str) -> Rule | None:
        rule = self._rules.get(name)
        return rule if rule is not None and rule.enabled else None

    def state(self) -> SamplingState:
        """Everything, for ``restore``."""
        self._fit()
        return SamplingState(
            self._bucket,
            len(self._counts),
            len(self._present),
            self._counts.tobytes(),
            self._shares.tobytes(),
            self._known.tobytes(),
            self._present.tobytes(),
            self._absent.tobytes(),
            list(self._back.items()),
        )

    def restore(self, state: SamplingState) -> None:
        """Take over the state of another judge with the same window; of one with another, only the presence of metrics."""
        self._bucket = state.bucket
        self._counts = np.frombuffer(state.counts, np.int32).copy()
        shares = np.frombuffer(state.shares, np.float32).reshape(-1, max(state.rows, 1))
        if shares.shape == (self._buckets, state.rows):
            self._shares = shares.copy()
        else:
            self._shares = np.full((self._buckets, state.rows), np.nan, np.float32)
        self._known = np.frombuffer(state.known, np.int32).copy()
        shape = state.metrics, state.rows
        self._present = np.frombuffer(state.present, np.float32).reshape(shape).copy()
        self._absent = np.frombuffer(state.absent, np.int16).reshape(shape).copy()
        self._back = dict(state.back)
