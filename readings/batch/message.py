"""The JSON of a batch. A sound message is parsed in one go; of a damaged one the items are left as raw JSON."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from readings.catalogue import CATALOGUE
from readings.checks import Refused, check_metric_name
from readings.description import is_well_named
from readings.labels import is_blank_identity
from readings.model import Gpu, PointBlock
from readings.text import is_safe_name
from readings.times import INT64_MAX, format_time

# Everything msgspec raises on outside bytes: its own errors, invalid UTF-8 in a string, and nesting that is too deep.
DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_Text = Annotated[str, Meta(max_length=255)]
_Reason = Annotated[str, Meta(max_length=64)]
_Natural = Annotated[int, Meta(ge=0, le=INT64_MAX)]
_WirePoint = tuple[_Natural, _Natural, list[float | None]]


class BatchError(ValueError):
    """The payload is no batch. The text names the field and what is allowed there."""


class PlainReading(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One item of ``metrics``. A null ``value`` is no reading; other missing fields are refused when the item is read.

    ``timestamp`` is RFC 3339 or a Unix time in s, ms, µs or ns. ``gpu_id`` and ``value`` are numbers or their text.
    ``labels`` may hold every label of the exporter; those that name a field count only where that field is not given.
    """

    timestamp: int | float | str = ""
    metric_name: str = ""
    value: float | str | UnsetType | None = UNSET
    uuid: str | None = None
    gpu_id: int | str | None = None
    device: str | None = None
    model_name: str | None = None
    hostname: str | None = None
    container: str | None = None
    pod: str | None = None
    namespace: str | None = None
    labels: Mapping[str, str] | None = None


class BatchHeader(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The fields beside the readings. ``refused`` has the sender's counts since its last batch, by reason of any kind (see Kinds).

    ``live``: the readings are sent as they are made, so their age is that by the clock. Anything but true is no.
    """

    batch_id: _Text = ""
    source: _Text = ""
    collected_at: _Text = ""
    refused: Annotated[dict[_Reason, _Natural], Meta(max_length=64)] = {}
    metric_names: list[str] = []
    live: Any = False


class BatchMessage(BatchHeader, kw_only=True, omit_defaults=True):
    """A message with ``points`` (and ``gpus`` and ``metric_names``), ``metrics``, or both. Ignores other fields."""

    gpus: list[Gpu] = []
    points: list[_WirePoint] | UnsetType | None = UNSET
    metrics: list[PlainReading] | UnsetType | None = UNSET


class BatchItems(BatchHeader, kw_only=True):
    """The same message with its items still undecoded."""

    gpus: list[Raw] = []
    points: list[Raw] | UnsetType | None = UNSET
    metrics: list[Raw] | UnsetType | None = UNSET


_uuid = attrgetter("uuid")
_encoder = msgspec.json.Encoder()
_whole = msgspec.json.Decoder(BatchMessage)
_items = msgspec.json.Decoder(BatchItems)


def encode_block(
    block: PointBlock,
    *,
    batch_id: str,
    source: str,
    collected_at: str,
    refused: Mapping[str, int] | None = None,
    live: bool = False,
) -> bytes:
    """The compact batch of ``block``. ``collected_at`` is RFC 3339. Values must be finite: JSON has no others."""
    return _encoder.encode(
        BatchMessage(
            batch_id=batch_id,
            source=source,
            collected_at=collected_at,
            refused=dict(refused or {}),
            live=live,
            gpus=block.gpus,
            metric_names=block.metric_names,
            points=block.points,
        )
    )


def encode_plain(
    block: PointBlock,
    *,
    batch_id: str,
    source: str,
    collected_at: str,
    refused: Mapping[str, int] | None = None,
    live: bool = False,
) -> bytes:
    """The plain batch of ``block``, for a collector that knows no other. ``collected_at`` is RFC 3339.

    The plain form has no shares of a GPU, which such a collector would take for the GPU itself: they stay points.
    """
    shares: dict[int, int] = {}
    fields = []
    for index, gpu in enumerate(block.gpus):
        if gpu.share:
            shares[index] = len(shares)
        fields.append(_plain_fields(gpu))
    metrics = []
    for index, time_ns, values in block.points:
        if index in shares:
            continue
        timestamp = format_time(time_ns)
        metrics += [
            PlainReading(timestamp=timestamp, metric_name=name, value=value, **fields[index])
            for name, value in zip(block.metric_names, values, strict=True)
            if value is not None
        ]
    message = BatchMessage(
        batch_id=batch_id,
        source=source,
        collected_at=collected_at,
        refused=dict(refused or {}),
        live=live,
        metrics=metrics,
    )
    if shares:
        message.gpus = [block.gpus[index] for index in shares]
        message.metric_names = block.metric_names
        message.points = [(shares[gpu], time_ns, values) for gpu, time_ns, values in block.points if gpu in shares]
    return _encoder.encode(message)


def _plain_fields(gpu: Gpu) -> dict[str, Any]:
    """What every plain reading of the GPU repeats. A MIG instance is named by dcgm-exporter's labels."""
    instance = {"GPU_I_ID": gpu.mig_id, "GPU_I_PROFILE": gpu.mig_profile}
    labels = {**gpu.labels, **{name: value for name, value in instance.items() if value}}
    return {
        "uuid": gpu.uuid,
        "hostname": gpu.hostname,
        "gpu_id": gpu.gpu_id,
        "device": gpu.device,
        "model_name": gpu.model_name,
        "container": gpu.container or None,
        "pod": gpu.pod or None,
        "namespace": gpu.namespace or None,
        "labels": labels or None,
    }


# How JSON in UTF-8 spells a character that no name may have. A quote or a backslash is also escaped, and harmless.
_ESCAPED = re.compile(rb"\\[ubfnrt]")
_RAW = re.compile(rb"\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]")


def _may_hide(payload: bytes) -> bool:
    """Whether a name may have a control character. Two searches of the bytes, nearly always, cost next to nothing."""
    if b"\\" in payload and _ESCAPED.search(payload):
        return True
    return not payload.isascii() and _RAW.search(payload) is not None


def parse_whole(payload: bytes) -> tuple[BatchMessage, PointBlock] | None:
    """The message and its points with the metric names as they came, or None if anything in it is wrong."""
    try:
        message = _whole.decode(payload)
    except DECODE_ERRORS:
        return None
    if any(map(is_blank_identity, map(_uuid, message.gpus))):
        return None
    if _may_hide(payload):
        texts = (message.batch_id, message.source, *message.refused)
        if not (is_safe_name("".join(texts)) and all(map(is_well_named, message.gpus))):
            return None
    block = PointBlock(message.gpus, message.metric_names, message.points or [])
    try:
        indexes = block.arrays.gpu
    except ValueError:  # points with more or fewer values than names
        return None
    if len(indexes) and indexes.max() >= len(message.gpus):
        return None
    return message, block


def is_utf8(payload: bytes) -> bool:
    """Whether all of the message is UTF-8, as JSON must be."""
    try:
        str(payload, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def parse_items(payload: bytes) -> BatchItems:
    """The message with its items undecoded; bytes that are not UTF-8 are replaced. Raises BatchError."""
    if not is_utf8(payload):
        payload = str(payload, "utf-8", "replace").encode()
    try:
        items = _items.decode(payload)
    except DECODE_ERRORS as error:
        raise BatchError(f"bad batch: {error}") from None
    if not is_safe_name("".join((items.batch_id, items.source, *items.refused))):
        raise BatchError("bad batch: a control character in batch_id, source or refused")
    return items


def canonical_names(names: Sequence[str]) -> list[str]:
    """The canonical metric names. Raises BatchError if one is bad or two are the same metric."""
    distinct = set(names)
    if len(distinct) == len(names) and distinct <= CATALOGUE.keys():
        return list(names)  # nearly always, and a look at each would take a fifth of a small message's time
    try:
        canonical = [check_metric_name(name) for name in names]
    except Refused as refused:
        raise BatchError(f"bad batch: {refused.detail} - at `$.metric_names`") from None
    if len(set(canonical)) < len(canonical):
        twice, _ = Counter(canonical).most_common(1)[0]
        raise BatchError(f"bad batch: {twice} is there twice - at `$.metric_names`")
    return canonical
