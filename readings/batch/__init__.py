"""The batch: the JSON message that a streamer publishes. Compact (points that share GPUs and metric names) or plain.

``decode`` is the one way in. A message passes four steps: ``message`` parses the JSON, ``salvage`` takes a damaged
message apart, ``plain`` turns plain readings into points, and ``readings.checks`` removes readings that cannot be true.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

import msgspec
from msgspec import UNSET

from readings.batch.message import (
    BatchError,
    BatchItems,
    BatchMessage,
    canonical_names,
    encode_block,
    encode_plain,
    is_utf8,
    parse_items,
    parse_whole,
)
from readings.batch.plain import read_metrics
from readings.batch.repeats import without_repeats
from readings.batch.salvage import salvage_metrics, salvage_points
from readings.blocks import BlockBuilder, most_cells
from readings.checks import NOT_UTF8, Refusals, check_block
from readings.model import Point, PointBlock

__all__ = ["BatchError", "DecodedBatch", "decode", "encode_block", "encode_plain"]


class DecodedBatch(msgspec.Struct):
    """The good readings of a batch, the refusals of the bad ones, and the counts by reason that the sender reported.

    ``remarks`` counts readings that were taken without something that they do not need. ``live``: the sender says that
    they are sent as they are made, not from a capture.
    """

    block: PointBlock
    refusals: Refusals
    source: str
    batch_id: str
    reported: dict[str, int]
    remarks: dict[str, int] = {}
    live: bool = False


def decode(payload: bytes, *, now_ns: int | None = None, oldest_ns: int | None = None) -> DecodedBatch:
    """Decodes a message; each bad reading becomes a refusal. Raises BatchError if the message is no batch at all.

    Metric names come out canonical, values as floats, times within 64 bits. Plain readings become points, as
    BlockBuilder makes them. With ``now_ns``, ``check_block`` also refuses readings that cannot be true; without it they
    stay, which a sender needs to split a batch.
    """
    message: BatchMessage | BatchItems
    remarks: dict[str, int] = {}
    whole = parse_whole(payload)
    if whole is not None:
        message, block = whole
        block.metric_names, refusals = canonical_names(block.metric_names), Refusals()
        plain = read_metrics(message.metrics) if message.metrics else None
    else:
        message = items = parse_items(payload)
        block, refusals, remarks = salvage_points(items.gpus, canonical_names(items.metric_names), items.points or [])
        plain = read_metrics(salvage_metrics(items.metrics or ()))
        if not is_utf8(payload):
            remarks[NOT_UTF8] = 1
    if message.points is UNSET and message.metrics is UNSET:
        raise BatchError("bad batch: it has neither points nor metrics")
    block, repeats = without_repeats(block)
    if repeats:
        refusals.merge(repeats)
    if plain is not None:
        refusals.merge(plain.refusals)
        remarks = dict(plain.remarks + Counter(remarks))
        if plain.builder:
            block = _joined(block, plain.builder)
    if now_ns is not None:
        block, impossible = check_block(block, now_ns=now_ns, oldest_ns=oldest_ns)
        if impossible:
            refusals.merge(impossible)
    return DecodedBatch(
        block, refusals, message.source, message.batch_id, message.refused, remarks, message.live is True
    )


def _joined(block: PointBlock, builder: BlockBuilder) -> PointBlock:
    """One block of the compact points, if there are any, followed by the plain ones."""
    readings = len(builder)
    # Each may be a value of a GPU and the place of a pod that shares it. A second block is too many, and there may be very many.
    plain, *rest = islice(builder.blocks(2 * readings), 2)
    if not rest and not block.points:
        return plain
    names = list(dict.fromkeys((*block.metric_names, *plain.metric_names)))
    readings += block.count()
    if rest or (len(block.points) + len(plain.points)) * len(names) > most_cells(readings):
        raise BatchError("bad batch: too many metric names for so few readings of each; send them in several batches")
    points = [*_points_under(names, block, 0), *_points_under(names, plain, len(block.gpus))]
    return PointBlock(block.gpus + plain.gpus, names, points)


def _points_under(names: Sequence[str], block: PointBlock, first_gpu: int) -> Iterator[Point]:
    """The block's points with a value for each of ``names``. GPU indexes count from ``first_gpu``."""
    columns = {name: column for column, name in enumerate(block.metric_names)}
    order = [columns.get(name) for name in names]
    for index, time_ns, values in block.points:
        yield first_gpu + index, time_ns, [None if column is None else values[column] for column in order]
