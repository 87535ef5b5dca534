"""Writing points into the readings' SQLite file, and deleting old ones: one transaction a call, no object per reading."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress, groupby, pairwise

import numpy as np

from readings.model import Gpu, PointBlock
from stores.aggregate.functions import Ints, Mask, starts_run
from stores.base import Description, describe
from stores.sqlite.points import Points, merge, pack_points, pack_values, recent_points, stored_points
from stores.sqlite.schema import BLOCK_NS, LAST_NS, NEVER, STRIPE, STRIPE_BITS, transaction

# Blocks of a stripe that may have rows in ``recent``: the one that is being filled, and one for points that are late.
_OPEN_BLOCKS = 2
# The most readings of one block that wait there; for a large block half as many as are merged already. Each merge then
# rewrites no more than about twice what is new.
_MOST_WAITING = 10_000
# Merging of new readings stops for this call after so many seconds, unless a stripe has fallen far behind.
_MERGE_SECONDS = 0.1
_FAR_BEHIND = 8
# Sizes at which the caches of ids are emptied.
_IDS_KNOWN = 200_000
_BLOCKS_KNOWN = 16

_ADD_RECENT = """
INSERT INTO recent (block, stripe, points, readings, oldest, newest, data, metrics, numbers)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_RECENT = "SELECT points, data, metrics, numbers FROM recent WHERE stripe = ? AND block = ? ORDER BY id"
_CHUNKS = "SELECT metric, readings, data FROM chunk WHERE stripe = ? AND block = ? ORDER BY metric"
_PUT_BLOCK = "INSERT INTO block (block, stripe, points, readings, oldest, newest, data) VALUES (?, ?, ?, ?, ?, ?, ?)"
_PUT_STRIPE = "INSERT OR REPLACE INTO stripe (id, metrics, open, newest) VALUES (?, ?, ?, ?)"
_FIND_SOURCE = "SELECT id FROM source WHERE gpu = ? AND share = ? AND namespace = ? AND pod = ? AND container = ?"
# Any other index would be taken by SQLite as readily, and nearly all GPUs may be the same there (no pod).
_FIND_IDENTITY = """
SELECT id FROM identity INDEXED BY identity_by_source WHERE source = ? AND uuid = ? AND mig_id = ? AND gpu_id IS ? AND device = ? AND model_name = ?
AND hostname = ? AND container = ? AND pod = ? AND namespace = ?
"""
_ADD_IDENTITY = """
INSERT INTO identity (source, uuid, mig_id, gpu_id, device, model_name, hostname, container, pod, namespace,
first_block, last_block) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_WIDEN_IDENTITY = """
UPDATE identity SET first_block = min(first_block, ?1), last_block = max(last_block, ?1)
WHERE id = ?2 AND (first_block > ?1 OR last_block < ?1)
"""
_COUNT = """
UPDATE state SET readings = readings + ?, shares = shares + ?, series = series + ?,
    oldest = min(ifnull(oldest, ?4), ifnull(?4, oldest)), newest = max(ifnull(newest, ?5), ifnull(?5, newest))
"""
_SPAN = """
UPDATE state SET (oldest, newest) = (SELECT min(oldest), max(newest) FROM (
    SELECT oldest, newest FROM block WHERE stripe >= 0 UNION ALL SELECT oldest, newest FROM recent WHERE stripe >= 0))
"""


class Unstorable(Exception):
    """The blocks hold something that cannot be stored, so nothing was written."""


@dataclass(slots=True)
class _Stripe:
    """A row of ``stripe``. ``newest`` has a row for each source and a column for each of ``metrics`` (NEVER: no reading).

    ``open`` says for how many more readings of a block there is room in ``recent``; the block written last is the last.
    """

    id: int
    metrics: list[int]
    open: dict[int, int]
    newest: Ints

    def columns(self, metrics: list[int]) -> Ints:
        """Where the newest times of some metrics are. Makes room for new ones."""
        places = {metric: place for place, metric in enumerate(self.metrics)}
        if missing := [metric for metric in metrics if metric not in places]:
            places.update(zip(missing, range(len(self.metrics), len(self.metrics) + len(missing)), strict=True))
            self.metrics += missing
            self.newest = np.hstack([self.newest, np.full((STRIPE, len(missing)), NEVER)])
        return np.array([places[metric] for metric in metrics], dtype=np.int64)

    def series(self) -> int:
        """How many series it has."""
        return int(np.count_nonzero(self.newest != NEVER))


class Writer:
    """Writes through one connection, for one thread at a time. After an error the caller drops both."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._generation = 0
        self._metrics: dict[str, int] = {}
        self._ids: dict[tuple[Description, bool], tuple[int, int]] = {}
        # Block -> identities whose bounds in the file are known to include it.
        self._seen: dict[int, set[int]] = {}
        self._stripes: dict[int, _Stripe] = {}
        self._added = [0, 0]  # readings, shares
        self._series = 0
        self._times: list[int] = []
        self._until = 0.0

    def write(self, blocks: Sequence[PointBlock]) -> int:
        """Store all blocks in one transaction; returns how many readings and shares they held.

        Raises Unstorable or sqlite3.Error; then nothing of them is stored.
        """
        with transaction(self.connection):
            self._begin()
            written = 0
            try:
                # Neighbours with the same metrics are taken together; their order is kept, since later readings replace earlier.
                for names, run in groupby(blocks, key=lambda block: block.metric_names):
                    count, points = self._points(list(run), names)
                    written += count
                    if points.size:
                        self._add(points)
            except (OverflowError, UnicodeEncodeError) as error:
                raise Unstorable from error
            self._merge_open()
            self._save()
        return written

    def _begin(self) -> None:
        (generation,) = self.connection.execute("SELECT generation FROM state").fetchone()
        if generation != self._generation or len(self._ids) > _IDS_KNOWN:
            self._generation = generation
            self._ids.clear()
            self._seen.clear()
        while len(self._seen) > _BLOCKS_KNOWN:
            del self._seen[next(iter(self._seen))]
        self._stripes.clear()
        self._added, self._series, self._times = [0, 0], 0, []
        self._until = time.monotonic() + _MERGE_SECONDS

    # From blocks to arrays of ids and numbers.

    def _points(self, blocks: Sequence[PointBlock], names: list[str]) -> tuple[int, Points]:
        """The number of readings in the blocks, and the points, without those points and metrics that have no reading."""
        try:
            table = np.concatenate([block.arrays.values for block in blocks])
            times = np.concatenate([block.arrays.time_ns for block in blocks])
        except ValueError as error:
            raise Unstorable from error
        absent = ~np.isfinite(table)
        nulls = int(np.count_nonzero(absent))
        if nulls and table.size - nulls != sum(map(PointBlock.count, blocks)):
            raise Unstorable
        there = ~absent.all(axis=1) if nulls else np.ones(len(table), dtype=np.bool_)
        held = np.flatnonzero(~absent.all(axis=0)) if nulls else np.arange(len(names) if len(table) else 0)
        ids = self._ids_of(blocks, np.asarray(there))
        metrics = [self._metric(names[place]) for place in held.tolist()]
        values = np.ascontiguousarray(table[np.ix_(there, held)].T if nulls else table.T)
        points = Points(ids[:, 0], times[there], ids[:, 1], np.array(metrics, dtype=np.int64), values)
        if len(set(metrics)) != len(metrics):  # a name that a block has twice
            columns = zip(points.metrics[:, None], values[:, None], strict=True)
            points = merge([points._replace(metrics=metric, values=row) for metric, row in columns])
        return table.size - nulls, points

    def _ids_of(self, blocks: Sequence[PointBlock], there: Mask) -> Ints:
        """Source and identity of each point that is there."""
        found: list[tuple[int, int]] = []
        numbers: list[int] = []  # of each point: the place of its ids among those found
        at = 0
        for block in blocks:
            known: dict[int, int] = {}
            indexes, times = block.arrays.gpu.tolist(), block.arrays.time_ns.tolist()
            mine = there[at : at + len(indexes)].tolist()
            at += len(indexes)
            if not all(mine):
                indexes, times = list(compress(indexes, mine)), list(compress(times, mine))
            for index, time_ns in zip(indexes, times, strict=True):
                if index not in known:
                    known[index] = len(found)
                    found.append(self._id(block.gpus[index], time_ns // BLOCK_NS))
            numbers += [known[index] for index in indexes]
        return np.array(found, dtype=np.int64).reshape(-1, 2)[np.array(numbers, dtype=np.int64)]

    def _id(self, gpu: Gpu, block: int) -> tuple[int, int]:
        described = describe(gpu)
        known = self._ids.get((described, gpu.share))
        if known is not None:
            return known
        key = (gpu.id, gpu.share, *((gpu.namespace, gpu.pod, gpu.container) if gpu.share else ("", "", "")))
        found = self.connection.execute(_FIND_SOURCE, key).fetchone()
        if found is None:
            column, step = ("next_share", -1) if gpu.share else ("next_source", 1)
            found = self.connection.execute(
                f"UPDATE state SET {column} = {column} + ? RETURNING {column} - ?", (step, step)
            ).fetchone()
            self.connection.execute(
                "INSERT INTO source (id, gpu, share, namespace, pod, container) VALUES (?, ?, ?, ?, ?, ?)",
                (*found, *key),
            )
        row = (*found, *described)
        identity = self.connection.execute(_FIND_IDENTITY, row).fetchone()
        if identity is None:
            identity = (self.connection.execute(_ADD_IDENTITY, (*row, block, block)).lastrowid,)
        known = self._ids[described, gpu.share] = (*found, *identity)
        return known

    def _metric(self, name: str) -> int:
        known = self._metrics.get(name)
        if known is None:
            found = self.connection.execute("SELECT id FROM metric WHERE name = ?", (name,)).fetchone()
            if found is None:
                found = (self.connection.execute("INSERT INTO metric (name) VALUES (?)", (name,)).lastrowid,)
            known = self._metrics[name] = found[0]
        return known

    # From arrays to rows.

    def _add(self, points: Points) -> None:
        """Add points to ``recent``, or merge them at once where they may be stored already."""
        blocks, stripes = points.times // BLOCK_NS, points.sources >> STRIPE_BITS
        order = np.lexsort((points.times, points.sources, blocks, stripes))
        points, blocks, stripes = points.only(order), blocks[order], stripes[order]
        self._widen(points.identities, blocks)
        is_single = starts_run(points.sources, points.times)
        for start, end in pairwise([*np.flatnonzero(starts_run(blocks, stripes)).tolist(), len(order)]):
            part = points.only(slice(start, end)).without_empty_metrics()
            stripe = self._stripe(int(stripes[start]))
            block = int(blocks[start])
            is_new = self._note_times(stripe, part) and bool(is_single[start:end].all())
            readings = part.readings()
            room = stripe.open.pop(block, _MOST_WAITING)
            if is_new and (readings <= room or time.monotonic() > self._until):
                self._append(stripe, block, part, readings)
                stripe.open[block] = room - readings
            else:
                readings = self._merge(stripe, block, part)
                stripe.open[block] = max(_MOST_WAITING, readings // 2)
            if stripe.id >= 0:
                self._times += [int(part.times.min()), int(part.times.max())]

    def _note_times(self, stripe: _Stripe, part: Points) -> bool:
        """Raise the series' newest times. Returns whether every reading was newer than its series."""
        columns = stripe.columns(part.metrics.tolist())
        starts = np.flatnonzero(starts_run(part.sources))
        sources = np.ix_(part.sources[starts] & (STRIPE - 1), columns)
        before = stripe.newest[sources]
        absent = np.isnan(part.values)
        if absent.any():
            times = np.broadcast_to(part.times, part.values.shape)
            first = np.minimum.reduceat(np.where(absent, LAST_NS, times), starts, axis=1).T
            last = np.maximum.reduceat(np.where(absent, NEVER, times), starts, axis=1).T
        else:
            # Sorted by source and time.
            first = part.times[starts][:, None]
            last = part.times[np.append(starts[1:], part.size) - 1][:, None]
        self._series += int(np.count_nonzero((before == NEVER) & (last != NEVER))) if stripe.id >= 0 else 0
        stripe.newest[sources] = np.maximum(before, last)
        return bool((first > before).all())

    def _append(self, stripe: _Stripe, block: int, part: Points, readings: int) -> None:
        row = (block, stripe.id, part.size, readings, int(part.times.min()), int(part.times.max()))
        self.connection.execute(_ADD_RECENT, (*row, pack_points(part), part.metrics.tobytes(), part.values.tobytes()))
        self._added[stripe.id < 0] += readings

    def _merge_open(self) -> None:
        """Merge blocks that are over."""
        for stripe in self._stripes.values():
            for block in list(stripe.open):
                behind = len(stripe.open) - _OPEN_BLOCKS
                if behind > 0 and (behind > _FAR_BEHIND or time.monotonic() < self._until):
                    del stripe.open[block]
                    self._merge(stripe, block)

    def _merge(self, stripe: _Stripe, block: int, part: Points | None = None, oldest: int = NEVER) -> int:
        """Merge a block's recent rows and ``part`` into the stored block, without points older than ``oldest``.

        Returns the number of readings that the block then has.
        """
        key = (stripe.id, block)
        parts = [recent_points(stripe.id, *row) for row in self._execute(_RECENT, *key)]
        if not parts and part is None and oldest == NEVER:
            return 0
        stored = self._execute("SELECT points, data FROM block WHERE stripe = ? AND block = ?", *key).fetchone()
        if stored is not None:
            size, packed = stored
            parts.insert(0, stored_points(stripe.id, size, packed, self._execute(_CHUNKS, *key).fetchall()))
        before = sum(each.readings() for each in parts)
        points = merge(parts if part is None else [*parts, part])
        points = points.only(points.times >= oldest)
        for table in ("block", "chunk", "recent"):
            self._execute(f"DELETE FROM {table} WHERE stripe = ? AND block = ?", *key)
        readings = 0
        for metric, values in zip(points.metrics.tolist(), points.values, strict=True):
            count, data = pack_values(values)
            if count:
                self._execute("INSERT INTO chunk VALUES (?, ?, ?, ?, ?)", block, stripe.id, metric, count, data)
            readings += count
        if points.size:
            span = (int(points.times.min()), int(points.times.max()))
            self._execute(_PUT_BLOCK, block, stripe.id, points.size, readings, *span, pack_points(points))
        self._added[stripe.id < 0] += readings - before
        return readings

    def _stripe(self, number: int) -> _Stripe:
        stripe = self._stripes.get(number)
        if stripe is None:
            row = self._execute("SELECT metrics, open, newest FROM stripe WHERE id = ?", number).fetchone()
            metrics, blocks, newest = (np.frombuffer(each, np.int64) for each in row or (b"", b"", b""))
            opened = dict(zip(blocks[::2].tolist(), blocks[1::2].tolist(), strict=True))
            newest = newest.reshape(STRIPE, len(metrics)).copy()
            stripe = self._stripes[number] = _Stripe(number, metrics.tolist(), opened, newest)
        return stripe

    def _widen(self, identities: Ints, blocks: Ints) -> None:
        """Note in which blocks identities occur."""
        for block in np.unique(blocks).tolist():
            seen = self._seen.setdefault(block, set())
            if fresh := set(identities[blocks == block].tolist()) - seen:
                self.connection.executemany(_WIDEN_IDENTITY, [(block, each) for each in fresh])
                seen |= fresh

    def _save(self) -> None:
        for stripe in self._stripes.values():
            blocks = np.array(list(stripe.open.items()), dtype=np.int64)
            metrics = np.array(stripe.metrics, dtype=np.int64)
            self.connection.execute(
                _PUT_STRIPE, (stripe.id, metrics.tobytes(), blocks.tobytes(), stripe.newest.tobytes())
            )
        span = (min(self._times), max(self._times)) if self._times else (None, None)
        self.connection.execute(_COUNT, (*self._added, self._series, *span))

    # Retention.

    def blocks_before(self, oldest_ns: int) -> list[int]:
        """Blocks that hold something and are over before ``oldest_ns``."""
        held = (
            "SELECT DISTINCT block FROM block WHERE block < ?1 UNION SELECT DISTINCT block FROM recent WHERE block < ?1"
        )
        return [block for (block,) in self._execute(held, oldest_ns // BLOCK_NS)]

    def drop_block(self, block: int) -> int:
        """Drop one block of all GPUs in one transaction. Returns how many readings and shares were dropped."""
        with transaction(self.connection):
            self._begin()
            dropped = self._drop_block(block)
            self._save()
        return dropped

    def _drop_block(self, block: int) -> int:
        for (number,) in self._execute("SELECT DISTINCT stripe FROM recent WHERE block = ?", block).fetchall():
            self._merge(self._stripe(number), block)
        held = "SELECT total(readings) FROM block WHERE block = ? AND stripe "
        counts = [int(self._execute(held + which, block).fetchone()[0]) for which in (">= 0", "< 0")]
        for table in ("block", "chunk"):
            self._execute(f"DELETE FROM {table} WHERE block = ?", block)
        self._added = [added - count for added, count in zip(self._added, counts, strict=True)]
        return sum(counts)

    def drop_rest(self, oldest_ns: int) -> int:
        """Drop the rest before ``oldest_ns``, and unused names. Returns how many readings and shares were dropped."""
        last = oldest_ns // BLOCK_NS
        with transaction(self.connection):
            self._begin()
            # Somebody may have written old readings since blocks_before().
            dropped = sum(map(self._drop_block, self.blocks_before(oldest_ns)))
            partly = "SELECT stripe FROM {} WHERE block = ?1 AND oldest < ?2"
            partly = f"{partly.format('block')} UNION {partly.format('recent')}"
            for (number,) in self.connection.execute(partly, (last, oldest_ns)).fetchall():
                held = sum(self._added)
                self._merge(self._stripe(number), last, oldest=oldest_ns)
                dropped += held - sum(self._added)
            self._drop_names(oldest_ns)
            self._save()
            self._execute("DELETE FROM identity WHERE last_block < ?", last)
            self.connection.execute(_SPAN)
            self.connection.execute("UPDATE state SET generation = generation + 1")
        return dropped

    def _drop_names(self, oldest_ns: int) -> None:
        for (number,) in self.connection.execute("SELECT id FROM stripe").fetchall():
            stripe = self._stripe(number)
            before = stripe.series()
            stripe.newest[stripe.newest < oldest_ns] = NEVER
            stripe.open = {block: room for block, room in stripe.open.items() if block >= oldest_ns // BLOCK_NS}
            if number >= 0:
                self._series += stripe.series() - before
            held = np.flatnonzero((stripe.newest != NEVER).any(axis=0))
            stripe.metrics = [stripe.metrics[place] for place in held.tolist()]
            stripe.newest = np.ascontiguousarray(stripe.newest[:, held])
            gone = np.flatnonzero((stripe.newest == NEVER).all(axis=1)) + (number << STRIPE_BITS)
            self.connection.executemany("DELETE FROM source WHERE id = ?", [(source,) for source in gone.tolist()])
            if not stripe.metrics:
                del self._stripes[number]
                self._execute("DELETE FROM stripe WHERE id = ?", number)

    def _execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        return self.connection.execute(statement, values)
