"""The batch: what a streamer publishes as one message, as JSON. Compact (points that share GPUs and metric names) or plain.

Decoding goes down one of two roads. A batch with nothing wrong is decoded by msgspec in one go, and its compact points are the
result as they stand. If that fails, the batch is taken apart item by item, so that one bad reading is refused by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from readings.batch.plain import Metric, MetricReader
from readings.batch.salvage import DECODE_ERRORS, salvage_metrics, salvage_points
from readings.blocks import most_cells
from readings.checks import Refusal, Refused, check_metric_name
from readings.model import Gpu, Point, PointBlock
from readings.times import INT64_MAX

__all__ = ["Batch", "BatchError", "Decoded", "Metric", "decode_batch", "encode_block"]

_Text = Annotated[str, Meta(max_length=255)]
_Reason = Annotated[str, Meta(max_length=64)]
_Natural = Annotated[int, Meta(ge=0, le=INT64_MAX)]
_WirePoint = tuple[_Natural, _Natural, list[float | None]]


class BatchError(ValueError):
    """A payload that is no batch. The text names the field and what is allowed there."""


class _Header(msgspec.Struct, kw_only=True, omit_defaults=True):
    batch_id: _Text = ""
    source: _Text = ""
    collected_at: _Text = ""
    refused: Annotated[dict[_Reason, _Natural], Meta(max_length=64)] = {}
    metric_names: list[str] = []


class Batch(_Header, kw_only=True, omit_defaults=True):
    """One message. Either or both of ``points`` (with ``gpus`` and ``metric_names``) and ``metrics`` are there.

    ``refused`` counts by reason what the streamer turned away since its last batch. Unknown fields are ignored.
    """

    gpus: list[Gpu] = []
    points: list[_WirePoint] | UnsetType | None = UNSET
    metrics: list[Metric] | UnsetType | None = UNSET


class _Parts(_Header, kw_only=True):
    """The same message with its items still undecoded."""

    gpus: list[Raw] = []
    points: list[Raw] | UnsetType | None = UNSET
    metrics: list[Raw] | UnsetType | None = UNSET


class Decoded(msgspec.Struct):
    """A decoded batch: the good readings, what was refused of the others, and what the streamer reported as refused."""

    block: PointBlock
    refusals: list[Refusal]
    source: str
    batch_id: str
    reported: dict[str, int]


_encoder = msgspec.json.Encoder()
_batch = msgspec.json.Decoder(Batch)
_parts = msgspec.json.Decoder(_Parts)


def encode_block(
    block: PointBlock, *, batch_id: str, source: str, collected_at: str, refused: Mapping[str, int] | None = None
) -> bytes:
    """The compact batch that holds ``block``. ``collected_at`` is RFC 3339. Values are finite: JSON has no others."""
    batch = Batch(
        batch_id=batch_id,
        source=source,
        collected_at=collected_at,
        refused=dict(refused or {}),
        gpus=block.gpus,
        metric_names=block.metric_names,
        points=block.points,
    )
    return _encoder.encode(batch)


def decode_batch(payload: bytes) -> Decoded:
    """The readings in ``payload``, with a Refusal for each that is bad by itself. Raises BatchError for what is no batch.

    Metric names come out canonical. Plain readings become points grouped by GPU and time; those of a shared GPU as
    BlockBuilder says. Values are floats, times nanoseconds within 64 bits, GPU indexes good; ranges are check_block's.
    """
    reader = MetricReader()
    refusals: list[Refusal] = []
    header: Batch | _Parts
    batch = _whole(payload)
    if batch is not None:
        header = batch
        block = PointBlock(batch.gpus, _canonical(batch.metric_names), batch.points or [])
        reader.read(batch.metrics or ())
    else:
        header = parts = _in_parts(payload)
        block, refusals = salvage_points(parts.gpus, _canonical(parts.metric_names), parts.points or [])
        salvage_metrics(parts.metrics or (), reader)
    if header.points is UNSET and header.metrics is UNSET:
        raise BatchError("bad batch: it has neither points nor metrics")
    if reader.builder:
        block = _joined(block, reader)
    return Decoded(block, refusals + reader.refusals, header.source, header.batch_id, header.refused)


def _whole(payload: bytes) -> Batch | None:
    """The batch if nothing at all is wrong with its items, else None."""
    # JSON can say NUL in this one way only. No database takes it in a text; to look for it here is all but free.
    if b"\\u0000" in payload:
        return None
    try:
        batch = _batch.decode(payload)
    except DECODE_ERRORS:
        return None
    gpus, names = len(batch.gpus), len(batch.metric_names)
    for index, _, values in batch.points or ():
        if index >= gpus or len(values) != names:
            return None
    return batch


def _in_parts(payload: bytes) -> _Parts:
    try:
        parts = _parts.decode(payload)
    except DECODE_ERRORS as error:
        raise BatchError(f"bad batch: {error}") from None
    if any("\0" in text for text in (parts.batch_id, parts.source, *parts.refused)):
        raise BatchError("bad batch: a NUL character in batch_id, source or refused")
    return parts


def _canonical(names: Sequence[str]) -> list[str]:
    try:
        canonical = [check_metric_name(name) for name in names]
    except Refused as refused:
        raise BatchError(f"bad batch: {refused.detail} - at `$.metric_names`") from None
    if len(set(canonical)) < len(canonical):
        twice = next(name for name in canonical if canonical.count(name) > 1)
        raise BatchError(f"bad batch: {twice} is there twice - at `$.metric_names`")
    return canonical


def _joined(block: PointBlock, reader: MetricReader) -> PointBlock:
    """The compact block, if it holds any point, and the plain readings after it as one block."""
    readings = len(reader.builder)
    plain, *rest = reader.builder.blocks(readings)
    if not rest and not block.points:
        return plain
    names = list(dict.fromkeys((*block.metric_names, *plain.metric_names)))
    readings += block.count()
    if rest or (len(block.points) + len(plain.points)) * len(names) > most_cells(readings):
        raise BatchError("bad batch: too many metric names for so few readings of each; send them in several batches")
    points = [*_points_under(names, block, 0), *_points_under(names, plain, len(block.gpus))]
    return PointBlock(block.gpus + plain.gpus, names, points)


def _points_under(names: Sequence[str], block: PointBlock, first_gpu: int) -> Iterator[Point]:
    """The block's points with a place for each of ``names``, and GPU indexes counted from ``first_gpu``."""
    columns = {name: column for column, name in enumerate(block.metric_names)}
    order = [columns.get(name) for name in names]
    for index, time_ns, values in block.points:
        yield first_gpu + index, time_ns, [None if column is None else values[column] for column in order]
