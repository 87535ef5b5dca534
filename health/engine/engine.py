"""The engine: points in, transitions out. It does no input or output, and the same messages always give the same transitions.

Time is that of the messages: live readings are judged by their own times, silence by the broker's time of the newest message, or by
the clock that ``tick`` brings where no message comes. Captures go by their own newest time, so one that has ended stands still.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable

import msgspec
import numpy as np

from health.engine.absence import AbsenceJudge
from health.engine.book import Book
from health.engine.events import Key, Touch, Transition
from health.engine.facts import Facts
from health.engine.fleetwide import WANTED as FLEET_WANTED
from health.engine.fleetwide import FleetwideJudge
from health.engine.forgetting import without_departed
from health.engine.growth import GrowthLog
from health.engine.history import HistoryJudge
from health.engine.identity import VOLATILE, IdentityJudge
from health.engine.intake import MOST_GPUS, Arrivals, Intake
from health.engine.levels import LevelJudge
from health.engine.places import FleetPlaces
from health.engine.sampling import SamplingJudge
from health.engine.state import EngineState
from health.engine.view import PointView
from health.engine.xids import WANTED as XID_WANTED
from health.engine.xids import XidJudge
from health.rules.model import Rules
from readings.model import PointBlock
from readings.times import SECOND

# How often silence is looked for.
TICK_NS = 10 * SECOND
# A clock that stood for so long, and for how long nobody is missed then.
_PAUSE_NS, _SETTLE_NS = 60 * SECOND, 120 * SECOND
_EXPIRE_NS = 3600 * SECOND
_WEEK_NS = 7 * 86_400 * SECOND
# Points that rules look at one by one, for all rules together, and of one block. A message of 20,000 readings has fewer.
MOST_STEPS = 150_000
TOO_MANY_STEPS, TOO_MANY_XIDS = "too_many_steps", "too_many_xids"
# Rises when a state of before cannot be read any more.
VERSION = 1


class EngineStateError(ValueError):
    """The stored state cannot be read. The text says why."""


class Engine:
    """Judges a fleet by its rules. ``facts`` may be replaced at any time; ``wanted`` names metrics that others need too."""

    def __init__(
        self, rules: Rules, facts: Facts | None = None, wanted: Iterable[str] = (), *, most_gpus: int = MOST_GPUS
    ) -> None:
        self.facts = facts or Facts()
        self.judged = 0
        self._rules = rules
        conditions = [
            each
            for rule in rules.values()
            if rule.enabled
            for level in rule.levels
            for each in (level.when, level.until)
            if each is not None
        ]
        metrics = {name for each in conditions for name in each.metrics}
        needs = {name for rule in rules.values() for names in rule.needs for name in names}
        # How long each counter's growth is looked back at.
        self._windows: dict[str, int] = {}
        for metric, seconds in sorted(window for each in conditions for window in each.windows):
            self._windows[metric] = int(seconds * SECOND)
        ahead_ns = int(rules["clock_skew"].settings["ahead_s"] * SECOND)
        self._intake = Intake({*metrics, *needs, *VOLATILE, *XID_WANTED, *FLEET_WANTED, *wanted}, ahead_ns, most_gpus)
        self.registry = self._intake.registry
        self._places = FleetPlaces(self.registry)
        self._growth = GrowthLog()
        self.book = Book(rules)
        table = self._intake.table
        self._absence = AbsenceJudge(rules, self.registry, self._places, self.book)
        self._xids = XidJudge(rules, self.registry, table, self.book)
        self._identity = IdentityJudge(rules, self.registry, self._places, self.book, self._xids.reset)
        self._levels = [
            LevelJudge(rule, self.registry, self.book, self._identity.resets)
            for rule in rules.values()
            if rule.enabled and rule.levels
        ]
        self._sampling = SamplingJudge(rules, self.registry, table, self._places, self.book)
        self._fleetwide = FleetwideJudge(rules, self.registry, table, self._places, self.book)
        self._history = HistoryJudge(rules, self.book)
        self._now_ns = self._ticked_ns = self._expired_ns = self._settled_ns = 0

    @property
    def now_ns(self) -> int:
        """The time that it has come to; 0 before the first message."""
        return self._now_ns

    @property
    def left_out(self) -> Counter[str]:
        """What was not judged because one message asked for too much, by reason: points, or steps and XIDs of points."""
        return self._intake.left_out

    def wants(self, metric: str) -> bool:
        """Whether it looks at the metric, by its canonical name."""
        return self._intake.wants(metric)

    def take(self, block: PointBlock, *, source: str, live: bool, received_ns: int) -> Arrivals | None:
        """Judge a block of a message that the broker took at ``received_ns``. Returns what was new in it."""
        if self._now_ns and received_ns - self._now_ns > _PAUSE_NS:
            # Nobody was heard, and no clock ran: it was the log that was away. What waited for it is still on its way.
            self._settled_ns = received_ns + _SETTLE_NS
        self.tick(received_ns)
        arrivals = self._intake.take(block, source=source, live=live, received_ns=self._now_ns)
        if arrivals is None:
            return None
        self.judged += int((~np.isnan(arrivals.points)).sum())
        view = PointView(self._intake, arrivals, self._growth, self._fleetwide.statistic)
        for metric, keep_ns in self._windows.items():
            view.note_growth(metric, keep_ns)
        self._identity.take(arrivals)
        left = MOST_STEPS
        for judge in self._levels:
            taken, left_out = judge.take(arrivals, view, left)
            left -= taken
            self.left_out[TOO_MANY_STEPS] += left_out
        self.left_out[TOO_MANY_XIDS] += self._xids.take(arrivals)
        self._absence.take(arrivals, live, self._now_ns)
        self._sampling.take(arrivals, live)
        self._intake.keep(arrivals, self._now_ns if live else None)
        self._history.judge()
        return arrivals

    def tick(self, now_ns: int) -> None:
        """The clock has come to ``now_ns``: look for silence, if that is due. Time never goes back."""
        self._now_ns = max(self._now_ns, now_ns)
        if self._now_ns - self._ticked_ns < TICK_NS:
            return
        self._ticked_ns = self._now_ns
        self._identity.seen_again()
        self._identity.tick(self._time_of)
        if self._now_ns >= self._settled_ns:
            self._absence.tick(self._now_ns, self.facts)
        self._sampling.tick(self._now_ns, self.facts)
        self._fleetwide.tick(self._now_ns, self.facts)
        self._xids.tick(self._time_of)
        self._history.judge()
        if self._now_ns - self._expired_ns >= _EXPIRE_NS:
            self._expired_ns = self._now_ns
            self._xids.expire(self._now_ns)
            self._absence.expire()
            self._growth.expire(self._now_ns, self._windows)
            self.book.expire(self._now_ns, _WEEK_NS)

    def _time_of(self, row: int) -> int:
        """What time it is for a GPU: that of its capture is the newest of it."""
        gpu = self.registry.gpus[row]
        return self._now_ns if gpu.live else int(self.registry.last_ns[row])

    def resolve(self, key: Key) -> None:
        """A person closed the event. Its rule begins anew, and what still holds opens again only once it was over."""
        rule = self._rules.get(key.rule)
        self.book.dismiss(
            key, holds=rule is not None and rule.judge not in {"xid", "point"} and key.rule != "lemon_node"
        )
        row = self.registry.row_of.get(key.entity.id)
        for judge in self._levels:
            if judge.rule.name == key.rule and row is not None:
                judge.forget(row)
        self._absence.forget(key)
        self._xids.forget(key)
        self._history.forget(key)

    def drain(self) -> list[Transition]:
        """The transitions since the last call, in order."""
        return self.book.drain()

    def touched(self) -> list[Touch]:
        """Open events that still hold, to be written again: each at most once a minute."""
        return self.book.touched()

    def dump(self) -> bytes:
        """Its whole state. Drain before."""
        table = self._intake.table
        count, metrics = len(self.registry), len(table.columns)
        table.fit(self.registry.capacity)
        return zlib.compress(
            msgspec.msgpack.encode(
                EngineState(
                    VERSION,
                    self._now_ns,
                    self._ticked_ns,
                    self._expired_ns,
                    self._settled_ns,
                    self.judged,
                    list(table.columns),
                    np.ascontiguousarray(table.values[:metrics, :count]).tobytes(),
                    np.ascontiguousarray(table.times_ns[:metrics, :count]).tobytes(),
                    self.registry.state(),
                    self._places.replaced,
                    self.book.state(),
                    {judge.rule.name: judge.standings for judge in self._levels if judge.standings},
                    [(metric, row, list(steps)) for (metric, row), steps in self._growth.steps.items()],
                    self._absence.state(),
                    self._xids.state(),
                    self._identity.state(),
                    self._sampling.state(),
                    self._fleetwide.state(),
                )
            ),
            1,
        )

    @classmethod
    def load(
        cls,
        data: bytes,
        rules: Rules,
        facts: Facts | None = None,
        wanted: Iterable[str] = (),
        *,
        most_gpus: int = MOST_GPUS,
        forget_ns: int = 0,
    ) -> Engine:
        """The engine whose state this is, with these rules. Raises EngineStateError.

        GPUs that were not heard of for ``forget_ns`` (0: any) are left out: whoever keeps rows of the registry begins anew.
        """
        try:
            state = msgspec.msgpack.decode(zlib.decompress(data), type=EngineState)
            if state.version != VERSION:
                raise EngineStateError(f"the state is of version {state.version}, and this is version {VERSION}")
            if forget_ns:
                state = without_departed(state, state.now_ns - forget_ns)
            engine = cls(rules, facts, wanted, most_gpus=most_gpus)
            engine._restore(state)
        except (zlib.error, msgspec.MsgspecError, ValueError) as error:
            if isinstance(error, EngineStateError):
                raise
            raise EngineStateError(f"the state cannot be read: {error}") from error
        return engine

    def _restore(self, state: EngineState) -> None:
        self._now_ns, self._ticked_ns, self._expired_ns = state.now_ns, state.ticked_ns, state.expired_ns
        self._settled_ns = state.settled_ns
        self.judged = state.judged
        self.registry.restore(state.registry)
        table = self._intake.table
        table.restore(state.columns)
        table.fit(self.registry.capacity)
        shape = len(state.columns), len(self.registry)
        table.values[: shape[0], : shape[1]] = np.frombuffer(state.values, np.float64).reshape(shape)
        table.times_ns[: shape[0], : shape[1]] = np.frombuffer(state.times_ns, np.int64).reshape(shape)
        self._places.replaced.update(state.replaced)
        self.book.restore(state.book)
        for judge in self._levels:
            judge.restore(state.standings.get(judge.rule.name, {}))
        self._growth.restore(state.growth)
        self._absence.restore(state.absence)
        self._xids.restore(state.xids)
        self._identity.restore(state.identity)
        self._sampling.restore(state.sampling)
        self._fleetwide.restore(state.fleetwide)
        for key in [*self.book.events, *self.book.dismissed]:
            rule = self._rules.get(key.rule)
            if rule is None or not rule.enabled:
                self.book.close(key, self._now_ns, "its rule is no longer judged", is_gone=True)
