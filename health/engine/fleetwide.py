"""What only the whole fleet shows: a model's usual figures, how much of it is idle, and whose configuration is not the others'."""

from __future__ import annotations

import itertools
from collections import Counter

import msgspec
import numpy as np

from health.engine.book import Book
from health.engine.events import Entity, EntityPlace, Key
from health.engine.facts import Facts
from health.engine.intake import Floats, NewestTable
from health.engine.places import FleetLayout, FleetPlaces, Times, place_of
from health.engine.registry import GAP_STEPS, Mask, Registry
from health.rules.model import Rules
from readings.catalogue import whole_of
from readings.times import SECOND

UTIL, TEMP = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP"
# Settings of GPUs that should be the same in a host and over a model.
CONFIGURATION = ("DCGM_FI_DEV_ECC_MODE", "DCGM_FI_DEV_PERSISTENCE_MODE")
DRIVER = "driver"
WANTED = (UTIL, TEMP, *CONFIGURATION)

_BUSY = 90.0
# So few busy GPUs of a model say nothing about what is usual.
_FEWEST_BUSY = 8
_EVERY_NS = 60 * SECOND
_FRESH_NS = 60 * SECOND
# Of so few GPUs there is no majority.
_FEWEST_ALIKE = 5


class FleetwideState(msgspec.Struct):
    """The stored state of a FleetwideJudge. ``drifts`` has since when a GPU differs, by GPU and setting."""

    looked_ns: int
    idle_since_ns: int
    drifts: dict[str, dict[str, int]]
    statistics: dict[str, dict[str, float]]
    minutes: list[dict[str, tuple[float, float]]]


class FleetwideJudge:
    """Looks at the fleet once a minute."""

    def __init__(self, rules: Rules, registry: Registry, table: NewestTable, places: FleetPlaces, book: Book) -> None:
        self._rules = rules
        self._registry = registry
        self._table = table
        self._places = places
        self._book = book
        self._looked_ns = 0
        self._idle_since_ns = 0
        self._drifts: dict[str, dict[str, int]] = {}
        # By function and metric, the figure of each model.
        self._statistics: dict[str, dict[str, float]] = {}
        # Temperature and utilisation of each GPU in the last minutes.
        self._minutes: list[dict[str, tuple[float, float]]] = []
        self._by_row: dict[str, tuple[int, Floats]] = {}
        conditions = [level.when for rule in rules.values() for level in rule.levels]
        self._asked = sorted(
            {
                (function, metric)
                for each in conditions
                for function, metric in each.functions
                if function in _STATISTICS
            }
        )

    def statistic(self, function: str, metric: str) -> Floats:
        """What is usual for the model of each row of the registry; NaN where too few are known."""
        name = f"{function}:{metric}"
        kept = self._by_row.get(name)
        registry = self._registry
        if kept is None or kept[0] != registry.changes or len(kept[1]) != len(registry):
            of_model = self._statistics.get(name, {})
            kept = registry.changes, np.array([of_model.get(gpu.model, np.nan) for gpu in registry.gpus], np.float64)
            self._by_row[name] = kept
        return kept[1]

    def tick(self, now_ns: int, facts: Facts) -> None:
        """Look at the fleet, if a minute has passed."""
        if now_ns - self._looked_ns < _EVERY_NS:
            return
        self._looked_ns = now_ns
        layout = self._places.layout(facts)
        if not len(layout.rows):
            return
        times = self._places.times(layout, now_ns)
        util = self._fresh(UTIL, layout, times)
        self._learn(layout, times, util)
        self._judge_idle(layout, times, util)
        self._judge_drift(layout, times, facts)
        self._judge_ramps(layout, times, util)

    def _judge_ramps(self, layout: FleetLayout, times: Times, util: Floats) -> None:
        """A core that grows hotter minute by minute, at the same load."""
        rule = self._rules.get("temp_ramp")
        if rule is None or not rule.enabled:
            return
        minutes = max(1, int(rule.settings["window_s"] // 60))
        now = {
            self._registry.gpus[row].id: (temperature, load)
            for row, temperature, load in zip(
                layout.rows.tolist(), self._fresh(TEMP, layout, times).tolist(), util.tolist(), strict=True
            )
            if temperature == temperature and load == load
        }
        self._minutes = [*self._minutes, now][-minutes - 1 :]
        if len(self._minutes) <= minutes:
            return
        now_ns = int(times.now_ns.max())
        for gpu_id, (temperature, load) in now.items():
            key = Key(rule.name, Entity("gpu", gpu_id))
            first = self._minutes[0].get(gpu_id)
            if first is None:
                continue
            rise = (temperature - first[0]) / minutes
            if rise <= rule.settings["degrees_per_minute"]:
                self._book.close(key, now_ns, "it rises no more")
                continue
            past = [minute[gpu_id] for minute in self._minutes if gpu_id in minute]
            rises = all(later[0] > earlier[0] for earlier, later in itertools.pairwise(past))
            steady = all(abs(each[1] - load) <= rule.settings["util_within"] for each in past)
            if key in self._book.events:
                self._book.hold(key, now_ns)
            elif rises and steady and len(past) == len(self._minutes):
                place = place_of(self._registry, self._registry.row_of[gpu_id])
                self._book.open(key, now_ns, rule.severity, place, {"value": rise})

    def _fresh(self, metric: str, layout: FleetLayout, times: Times) -> Floats:
        """The metric's newest values of boards, NaN where they are old. Of a metric in parts the largest counts. MIG instances make
        no board's value here.
        """
        found = np.full(len(layout.rows), np.nan)
        limit = np.maximum(_FRESH_NS, GAP_STEPS * times.step_ns[layout.host])
        for name, column in self._table.columns.items():
            if whole_of(name) == metric and column < len(self._table.values):
                values, taken = self._table.values[column, layout.rows], self._table.times_ns[column, layout.rows]
                is_fresh = times.now_ns[layout.host] - taken <= limit
                found = np.fmax(found, np.where(is_fresh, values, np.nan))
        return found

    def _learn(self, layout: FleetLayout, times: Times, util: Floats) -> None:
        busy = util >= _BUSY
        models = [self._registry.gpus[row].model for row in layout.rows.tolist()]
        rows_of: dict[str, list[int]] = {}
        for at in np.flatnonzero(busy).tolist():
            rows_of.setdefault(models[at], []).append(at)
        self._by_row.clear()
        self._statistics = {}
        for function, metric in self._asked:
            values = self._fresh(metric, layout, times)
            found = {}
            for model, rows in rows_of.items():
                there = values[rows]
                there = there[~np.isnan(there)]
                if len(there) >= _FEWEST_BUSY:
                    found[model] = float(np.quantile(there, _STATISTICS[function]))
            self._statistics[f"{function}:{metric}"] = found

    def _judge_idle(self, layout: FleetLayout, times: Times, util: Floats) -> None:
        rule = self._rules.get("fleet_idle")
        known = ~np.isnan(util)
        if rule is None or not rule.enabled or known.sum() < rule.settings.get("fewest", 1):
            return
        share = float((util[known] < rule.settings["idle"]).mean())
        key = Key(rule.name, Entity("fleet", ""))
        now_ns = int(times.now_ns.max())
        if self._book.opened_ns(key) is not None:
            if share < rule.settings["clear_share"]:
                self._idle_since_ns = 0
                self._book.close(key, now_ns, "less of the fleet is idle")
            elif key in self._book.events:
                self._book.hold(key, now_ns)
        elif share <= rule.settings["share"]:
            self._idle_since_ns = 0
        elif not self._idle_since_ns:
            self._idle_since_ns = now_ns
        elif now_ns - self._idle_since_ns >= rule.settings["for_s"] * SECOND:
            self._book.open(key, now_ns, rule.severity, EntityPlace(), {"value": round(100 * share, 1)})

    def _judge_drift(self, layout: FleetLayout, times: Times, facts: Facts) -> None:
        rule = self._rules.get("config_drift")
        if rule is None or not rule.enabled:
            return
        now_ns = times.now_ns[layout.host]
        heard = now_ns - times.board_ns <= np.maximum(_FRESH_NS, GAP_STEPS * times.step_ns[layout.host])
        gpus = [self._registry.gpus[row] for row in layout.rows.tolist()]
        columns: dict[str, list[str]] = {DRIVER: [gpu.driver for gpu in gpus]}
        for metric in CONFIGURATION:
            columns[metric] = ["" if value != value else f"{value:g}" for value in self._fresh(metric, layout, times)]
        for subject, values in columns.items():
            usual = _majorities([gpu.model for gpu in gpus], values, heard)
            drifts = self._drifts.setdefault(subject, {})
            for at in np.flatnonzero(heard).tolist():
                gpu, value = gpus[at], values[at]
                expected = usual.get(gpu.model, "")
                key = Key(rule.name, Entity("gpu", gpu.id), subject)
                if not value or not expected:
                    continue
                if value == expected:
                    if drifts.pop(gpu.id, None) is not None:
                        self._book.close(key, int(now_ns[at]), "it is as the others again")
                    continue
                since = drifts.setdefault(gpu.id, int(now_ns[at]))
                if key in self._book.events:
                    self._book.hold(key, int(now_ns[at]))
                elif now_ns[at] - since >= rule.settings["for_s"] * SECOND and gpu.id not in facts.excused_gpus:
                    found: dict[str, float | str] = {"metric": subject, "value": value, "expected": expected}
                    place = place_of(self._registry, int(layout.rows[at]))
                    self._book.open(key, int(now_ns[at]), rule.severity, place, found)

    def state(self) -> FleetwideState:
        """Everything, for ``restore``."""
        return FleetwideState(self._looked_ns, self._idle_since_ns, self._drifts, self._statistics, self._minutes)

    def restore(self, state: FleetwideState) -> None:
        """Take over the state of another judge."""
        self._looked_ns, self._idle_since_ns = state.looked_ns, state.idle_since_ns
        self._drifts, self._statistics = dict(state.drifts), dict(state.statistics)
        self._minutes = list(state.minutes)
        self._by_row.clear()


_STATISTICS = {"model_median": 0.5, "model_p90": 0.9}


def _majorities(models: list[str], values: list[str], heard: Mask) -> dict[str, str]:
    """The value that more than half of a model's GPUs have, where there is one."""
    counts: dict[str, Counter[str]] = {}
    for model, value, is_heard in zip(models, values, heard.tolist(), strict=True):
        if value and is_heard:
            counts.setdefault(model, Counter())[value] += 1
    found = {}
    for model, of_model in counts.items():
        value, count = of_model.most_common(1)[0]
        if of_model.total() >= _FEWEST_ALIKE and 2 * count > of_model.total():
            found[model] = value
    return found
