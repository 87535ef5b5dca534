"""Roll-ups in SQLite: one file for each tier beside the file of the readings.

Keys have numbers, level by level. A *stripe* is 128 keys of a level that follow each other; a *block* is an hour of minutes, or a day
of hours. Windows are kept in chunks: the windows of a stripe in a block, for one metric, each statistic compressed by itself.

    key      the keys of windows, with their numbers
    metric   names of metrics
    chunk    windows: what each write brought is a chunk of its own, until the chunks of a block are merged
    open     blocks that have unmerged chunks, in the order of their last write
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import zstandard

from readings.times import SECOND
from stores.aggregate.functions import Floats, Ints, Mask, starts_run
from stores.rollups.windows import STATS, STEP_NS, Level, Tier, WindowKey, WindowTable
from stores.sqlite.connections import shorten_log
from stores.sqlite.file import BUSY_TIMEOUT, SqliteFile
from stores.sqlite.schema import Schema, transaction

_STRIPE = 128
# Steps of a block. They and the keys of a stripe fit into a byte.
_BLOCK_STEPS: dict[Tier, int] = {"1m": 60, "1h": 24}
# Blocks of a level that may have unmerged chunks: the one that is being filled, and one for windows that are late.
_OPEN_BLOCKS = 2
# Writes to a block between two merges. More make reading slower, fewer make writing dearer.
_MOST_PARTS = 12
_COMPRESSION = 3

_SCHEMA = Schema(
    0x47505557,  # "GPUW"
    1,
    """
CREATE TABLE key (
    level TEXT NOT NULL,
    number INTEGER NOT NULL,
    uuid TEXT NOT NULL,
    mig_id TEXT NOT NULL,
    hostname TEXT NOT NULL,
    model TEXT NOT NULL,
    PRIMARY KEY (level, number)
) WITHOUT ROWID;
CREATE TABLE metric (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    level TEXT NOT NULL,
    metric INTEGER NOT NULL,
    block INTEGER NOT NULL,
    stripe INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX chunk_by_metric ON chunk (level, metric, block, stripe);
CREATE INDEX chunk_by_block ON chunk (block, level);
CREATE TABLE open (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    level TEXT NOT NULL,
    block INTEGER NOT NULL,
    parts INTEGER NOT NULL,
    UNIQUE (level, block)
)
""",
)

_CHUNKS_OF_METRIC = """
SELECT block, stripe, data FROM chunk WHERE level = ? AND metric = (SELECT id FROM metric WHERE name = ?)
AND block BETWEEN ? AND ? AND stripe IN (SELECT value FROM json_each(?)) ORDER BY block, stripe, id
"""
_NOTE_OPEN = """
REPLACE INTO open (level, block, parts)
VALUES (?1, ?2, 1 + ifnull((SELECT parts FROM open WHERE level = ?1 AND block = ?2), 0))
"""
_OF_GPUS = """
(uuid IN (SELECT value FROM json_each(?)) OR mig_id != '' AND uuid || ':' || mig_id IN (SELECT value FROM json_each(?)))
"""
# Stripes are never used by half: a number comes back only when no window of its stripe is left.
_DROP_UNUSED_KEYS = """
DELETE FROM key WHERE (level, number / ?) NOT IN (SELECT DISTINCT level, stripe FROM chunk)
"""


class SqliteRollups:
    """Roll-ups in the files ``NAME-1m`` and ``NAME-1h`` beside the readings' file NAME. See stores.rollups.windows.RollupStore.

    ``retention`` has the seconds that each tier is kept (0: for ever). ``timeout`` is as in SqliteStore.
    """

    def __init__(self, path: Path | str, *, retention: Mapping[Tier, float], timeout: float = BUSY_TIMEOUT) -> None:
        path = Path(path)
        self._retention = retention
        self.files: dict[Tier, SqliteFile[_WindowWriter]] = {}
        for tier in STEP_NS:
            name = path.with_name(f"{path.stem}-{tier}{path.suffix}")
            self.files[tier] = SqliteFile(name, _SCHEMA, _WindowWriter, timeout=timeout)

    def write(self, tables: Sequence[WindowTable]) -> None:
        """Store the windows of each tier in one transaction, which is on the disk when this returns."""
        for tier, file in self.files.items():
            chosen = [table for table in tables if table.tier == tier and len(table)]
            if chosen:
                with file.writing() as writer:
                    writer.write(_ChunkLayout.of(tier), chosen)
                    shorten_log(writer.connection, file.path, timeout=file.timeout)

    def read(
        self,
        tier: Tier,
        level: Level,
        metric_name: str,
        stats: Sequence[str],
        start_ns: int,
        end_ns: int,
        *,
        gpus: Sequence[str] = (),
        hostnames: Sequence[str] = (),
        models: Sequence[str] = (),
    ) -> WindowTable:
        """The windows of one metric that begin in [start_ns, end_ns), in order of time."""
        layout = _ChunkLayout.of(tier)
        first, end = layout.first_from(start_ns), layout.first_from(end_ns)
        parts = [_WindowColumns.none(stats)]
        with self.files[tier].reading() as connection:
            keys = _find_keys(connection, level, gpus, hostnames, models)
            places = np.full(max(keys, default=-1) + 2, -1)  # the last is for numbers beyond the keys found
            places[list(keys)] = np.arange(len(keys))
            stripes = json.dumps(sorted({number // _STRIPE for number in keys}))
            rows = connection.execute(
                _CHUNKS_OF_METRIC, (level, metric_name, first // layout.steps, (end - 1) // layout.steps, stripes)
            )
            unpack = zstandard.ZstdDecompressor().decompress
            for (block, stripe), chunks in groupby(rows, key=itemgetter(0, 1)):
                windows = _merge([layout.unpack(unpack, block, stripe, data, stats) for _, _, data in chunks], stats)
                wanted = (windows.steps >= first) & (windows.steps < end) & windows.have_any()
                wanted &= places[np.minimum(windows.keys, len(places) - 1)] >= 0
                parts.append(windows.only(wanted))
        found = _WindowColumns.concatenated(parts)
        found = found.only(np.argsort(found.steps, kind="stable"))
        return WindowTable(
            tier,
            level,
            list(keys.values()),
            (metric_name,),
            places[found.keys],
            found.steps * layout.step_ns,
            {stat: values[:, np.newaxis] for stat, values in found.stats.items()},
        )

    def drop(self, tier: Tier, start_ns: int, end_ns: int) -> None:
        """Remove the windows that begin in [start_ns, end_ns)."""
        layout = _ChunkLayout.of(tier)
        first, end = layout.first_from(start_ns), layout.first_from(end_ns)
        if first < end:
            with self.files[tier].writing() as writer:
                writer.drop(layout, first, end)

    def apply_retention(self, now_ns: int) -> None:
        """Drop blocks whose windows are all older than their tier's retention."""
        for tier, seconds in self._retention.items():
            if seconds:
                layout = _ChunkLayout.of(tier)
                oldest = layout.first_from(now_ns - int(seconds * SECOND)) // layout.steps
                with self.files[tier].writing() as writer:
                    writer.drop_blocks_before(oldest)

    def bytes(self) -> dict[Tier, int]:
        """The size of each file, with its write-ahead log."""
        return {tier: file.bytes() for tier, file in self.files.items()}

    def ping(self) -> None:
        """Raise StoreUnavailable unless both files can be read now."""
        for file in self.files.values():
            with file.reading() as connection:
                connection.execute("SELECT number FROM key LIMIT 1").fetchone()

    def close(self) -> None:
        """Close the files. A call in another thread ends first."""
        for file in self.files.values():
            file.close()


class _Chunk(msgspec.Struct, array_like=True):
    """A chunk as it is stored. ``keys`` and ``steps`` have a byte for each row: its key in the stripe, its step in the block."""

    keys: bytes
    steps: bytes
    stats: dict[str, bytes]


_decode_chunk = msgspec.msgpack.Decoder(_Chunk).decode


class _WindowColumns(NamedTuple):
    """Windows of one metric, by column. ``keys`` are numbers of keys, ``steps`` are starts in steps of the tier."""

    keys: Ints
    steps: Ints
    stats: dict[str, Floats]

    @classmethod
    def none(cls, stats: Sequence[str]) -> _WindowColumns:
        return cls(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), {stat: np.zeros(0) for stat in stats})

    @classmethod
    def concatenated(cls, parts: Sequence[_WindowColumns]) -> _WindowColumns:
        """All rows of parts that have the same statistics."""
        return cls(
            np.concatenate([part.keys for part in parts]),
            np.concatenate([part.steps for part in parts]),
            {stat: np.concatenate([part.stats[stat] for part in parts]) for stat in parts[0].stats},
        )

    def only(self, chosen: Mask | Ints) -> _WindowColumns:
        return _WindowColumns(
            self.keys[chosen], self.steps[chosen], {stat: values[chosen] for stat, values in self.stats.items()}
        )

    def have_any(self) -> Mask:
        """Which rows have a statistic."""
        there = np.zeros(len(self.keys), dtype=np.bool_)
        for values in self.stats.values():
            there |= ~np.isnan(values)
        return there


def _merge(parts: Sequence[_WindowColumns], stats: Sequence[str]) -> _WindowColumns:
    """One row for each key and step, by key and step. Of a statistic that several parts have, the last wins."""
    if len(parts) == 1:
        return parts[0]
    merged = _WindowColumns.concatenated(parts)
    order = np.lexsort((merged.steps, merged.keys))  # stable: equal rows stay in the order of writing
    merged = merged.only(order)
    is_first = starts_run(merged.keys, merged.steps)
    places = np.cumsum(is_first) - 1
    columns = {}
    for stat in stats:
        values = merged.stats[stat]
        there = np.flatnonzero(~np.isnan(values))
        columns[stat] = np.full(int(is_first.sum()), np.nan)
        columns[stat][places[there]] = values[there]
    return _WindowColumns(merged.keys[is_first], merged.steps[is_first], columns)


class _ChunkLayout(NamedTuple):
    """How the windows of a tier are put into chunks: ``step_ns`` of a window, ``steps`` of a block."""

    tier: Tier
    step_ns: int
    steps: int

    @classmethod
    def of(cls, tier: Tier) -> _ChunkLayout:
        return cls(tier, STEP_NS[tier], _BLOCK_STEPS[tier])

    def first_from(self, time_ns: int) -> int:
        """The first step that begins at a time or after it."""
        return -(-time_ns // self.step_ns)

    def pack(self, pack: Callable[[bytes], bytes], windows: _WindowColumns) -> bytes:
        """A chunk from windows of one block and one stripe."""
        keys = (windows.keys % _STRIPE).astype(np.uint8)
        steps = (windows.steps % self.steps).astype(np.uint8)
        stats = {stat: pack(values.tobytes()) for stat, values in windows.stats.items() if not np.isnan(values).all()}
        return msgspec.msgpack.encode(_Chunk(pack(keys.tobytes()), pack(steps.tobytes()), stats))

    def unpack(
        self, unpack: Callable[[bytes], bytes], block: int, stripe: int, data: bytes, stats: Sequence[str]
    ) -> _WindowColumns:
        """The inverse, for some statistics. One that the chunk lacks is NaN."""
        chunk = _decode_chunk(data)
        keys = np.frombuffer(unpack(chunk.keys), np.uint8).astype(np.int64)
        steps = np.frombuffer(unpack(chunk.steps), np.uint8).astype(np.int64)
        columns = {
            stat: np.frombuffer(unpack(chunk.stats[stat])) if stat in chunk.stats else np.full(len(keys), np.nan)
            for stat in stats
        }
        return _WindowColumns(keys + stripe * _STRIPE, steps + block * self.steps, columns)


class _WindowWriter:
    """Writes through one connection, for one thread at a time. It remembers nothing, so other processes may write too."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._pack = zstandard.ZstdCompressor(level=_COMPRESSION).compress
        self._unpack = zstandard.ZstdDecompressor().decompress

    def write(self, layout: _ChunkLayout, tables: Sequence[WindowTable]) -> None:
        """Store the tables in one transaction. Raises sqlite3.Error; then nothing of them is stored."""
        with transaction(self.connection):
            for table in tables:
                self._add(layout, table)
            for level in {table.level for table in tables}:
                self._merge_open(layout, level)

    def drop(self, layout: _ChunkLayout, first: int, end: int) -> None:
        """Remove the windows from one step to another, in one transaction."""
        whole_from, whole_to = -(-first // layout.steps), end // layout.steps
        with transaction(self.connection):
            self._drop_blocks("block >= ? AND block < ?", whole_from, whole_to)
            for block in {first // layout.steps, (end - 1) // layout.steps}:
                if not whole_from <= block < whole_to:
                    self._rewrite(layout, block, without=range(first, end))

    def drop_blocks_before(self, oldest: int) -> None:
        """Remove the blocks before one, each in a transaction of its own so that others can write between, and keys without windows."""
        blocks = self.connection.execute("SELECT DISTINCT block FROM chunk WHERE block < ?", (oldest,)).fetchall()
        for (block,) in blocks:
            with transaction(self.connection):
                self._drop_blocks("block = ?", block)
        if blocks:
            with transaction(self.connection):
                self.connection.execute(_DROP_UNUSED_KEYS, (_STRIPE,))

    def _add(self, layout: _ChunkLayout, table: WindowTable) -> None:
        keys = self._numbers(table)[table.places]
        steps = table.starts_ns // layout.step_ns
        blocks, stripes = steps // layout.steps, keys // _STRIPE
        order = np.lexsort((steps, keys, blocks))
        bounds = np.flatnonzero(starts_run(blocks[order], stripes[order])).tolist()
        metrics = [self._metric(name) for name in table.names]
        for first, end in pairwise([*bounds, len(order)]):
            rows = order[first:end]
            block, stripe = int(blocks[rows[0]]), int(stripes[rows[0]])
            values = {stat: np.ascontiguousarray(each[rows].T) for stat, each in table.stats.items()}
            for place, metric in enumerate(metrics):
                windows = _WindowColumns(keys[rows], steps[rows], {stat: each[place] for stat, each in values.items()})
                if windows.have_any().any():
                    self._put(layout, table.level, metric, block, stripe, windows)
        for block in np.unique(blocks).tolist():
            self.connection.execute(_NOTE_OPEN, (table.level, block))

    def _put(
        self, layout: _ChunkLayout, level: str, metric: int, block: int, stripe: int, windows: _WindowColumns
    ) -> None:
        self.connection.execute(
            "INSERT INTO chunk (level, metric, block, stripe, data) VALUES (?, ?, ?, ?, ?)",
            (level, metric, block, stripe, layout.pack(self._pack, windows)),
        )

    def _numbers(self, table: WindowTable) -> Ints:
        """The number of each key of a table; of those without windows -1."""
        known = {key: number for number, key in _find_keys(self.connection, table.level).items()}
        free = max(known.values(), default=-1) + 1
        numbers = np.full(len(table.keys), -1)
        for place in np.unique(table.places).tolist():
            key = table.keys[place]
            number = known.get(key)
            if number is None:
                number = known[key] = free
                free += 1
                self.connection.execute("INSERT INTO key VALUES (?, ?, ?, ?, ?, ?)", (table.level, number, *key))
            numbers[place] = number
        return numbers

    def _metric(self, name: str) -> int:
        self.connection.execute("INSERT OR IGNORE INTO metric (name) VALUES (?)", (name,))
        found: int = self.connection.execute("SELECT id FROM metric WHERE name = ?", (name,)).fetchone()[0]
        return found

    def _merge_open(self, layout: _ChunkLayout, level: Level) -> None:
        """Merge the blocks that were not written lately, and those that have many parts."""
        found = self.connection.execute(
            "SELECT block, parts FROM open WHERE level = ? ORDER BY id DESC", (level,)
        ).fetchall()
        for place, (block, parts) in enumerate(found):
            if place >= _OPEN_BLOCKS or parts >= _MOST_PARTS:
                if parts > 1:
                    self._rewrite(layout, block, level=level)
                self.connection.execute("DELETE FROM open WHERE level = ? AND block = ?", (level, block))

    def _rewrite(
        self, layout: _ChunkLayout, block: int, *, level: Level | None = None, without: range = range(0)
    ) -> None:
        """Merge the chunks of a block, of one level or of all, and leave out some steps."""
        query = "SELECT level, metric, stripe, id, data FROM chunk WHERE block = ? AND level = ifnull(?, level)"
        chunks = self.connection.execute(f"{query} ORDER BY level, metric, stripe, id", (block, level)).fetchall()
        for (of_level, metric, stripe), parts in groupby(chunks, key=itemgetter(0, 1, 2)):
            ids, data = zip(*((each[3], each[4]) for each in parts), strict=True)
            if len(ids) == 1 and not without:
                continue
            windows = _merge([layout.unpack(self._unpack, block, stripe, each, STATS) for each in data], STATS)
            windows = windows.only((windows.steps < without.start) | (windows.steps >= without.stop))
            self.connection.executemany("DELETE FROM chunk WHERE id = ?", [(each,) for each in ids])
            if len(windows.keys):
                self._put(layout, of_level, metric, block, stripe, windows)

    def _drop_blocks(self, condition: str, *values: int) -> None:
        for table in ("chunk", "open"):
            self.connection.execute(f"DELETE FROM {table} WHERE {condition}", values)  # noqa: S608 - texts of ours


def _find_keys(
    connection: sqlite3.Connection,
    level: Level,
    gpus: Sequence[str] = (),
    hostnames: Sequence[str] = (),
    models: Sequence[str] = (),
) -> dict[int, WindowKey]:
    """The keys of a level by number, of these boards or instances, hosts and models (empty: of all)."""
    conditions, values = ["level = ?"], [str(level)]
    for condition, asked in ((_OF_GPUS, gpus), ("hostname IN (SELECT value FROM json_each(?))", hostnames),
                             ("model IN (SELECT value FROM json_each(?))", models)):  # fmt: skip
        if asked:
            conditions.append(condition)
            values += [json.dumps(asked)] * condition.count("?")
    query = f"SELECT number, uuid, mig_id, hostname, model FROM key WHERE {' AND '.join(conditions)} ORDER BY number"  # noqa: S608
    return {number: WindowKey(*key) for number, *key in connection.execute(query, values)}
