"""The description of a GPU, from fields of any source: an identity that must be there, and the rest as far as it can be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from readings.checks import BAD_FIELD, NO_IDENTITY, TOO_MANY_LABELS, Refused
from readings.labels import BAD_LABEL, Remark, is_blank_identity
from readings.model import MAX_INDEX, MAX_LABEL, MAX_LABELS, MAX_MODEL, MAX_NAME, MAX_UUID, MAX_WORD, Gpu
from readings.text import is_safe_name

_TEXTS = {
    "hostname": MAX_NAME,
    "device": MAX_WORD,
    "model_name": MAX_MODEL,
    "mig_profile": MAX_WORD,
    "container": MAX_NAME,
    "pod": MAX_NAME,
    "namespace": MAX_NAME,
}
_SHOWN = 40


def describe_gpu(fields: Mapping[str, Any], remarks: Iterable[Remark] = ()) -> tuple[Gpu, list[Remark]]:
    """The GPU with these fields (see ``Gpu``), which may be of any type, and the remarks: those given and one on each field left out.

    Raises Refused if the identity (uuid, MIG instance) is missing, cannot be read or does not fit. Slow: call it once per GPU.
    """
    told = list(remarks)
    made: dict[str, Any] = {"uuid": _identity("uuid", fields.get("uuid"), MAX_UUID)}
    if is_blank_identity(made["uuid"]):
        raise Refused(NO_IDENTITY, f"uuid {made['uuid'][:_SHOWN]!r} names no GPU")
    if fields.get("mig_id"):
        made["mig_id"] = _identity("mig_id", fields["mig_id"], MAX_WORD)
    if fields.get("share"):
        if fields["share"] is not True or not _fits(fields.get("pod"), MAX_NAME):
            raise Refused(BAD_FIELD, "share is true or false, and a share is of a pod")
        made["share"] = True
    for name, limit in _TEXTS.items():
        value = fields.get(name)
        if _fits(value, limit):
            made[name] = value
        elif value is not None and value != "":
            told.append(_left_out(name, value, f"a text of at most {limit} characters without control characters"))
    index = fields.get("gpu_id")
    number = _index(index)
    if number is not None:
        made["gpu_id"] = number
    elif index is not None and not (isinstance(index, str) and not index.strip()):
        told.append(_left_out("gpu_id", index, f"a whole number from 0 to {MAX_INDEX}"))
    labels = fields.get("labels")
    if isinstance(labels, Mapping):
        made["labels"] = _fitting(labels, told)
    elif labels is not None:
        told.append(_left_out("labels", labels, "an object of texts"))
    return Gpu(**made), told


def _identity(name: str, value: object, limit: int) -> str:
    if value is None:
        raise Refused(NO_IDENTITY, f"{name} is missing")
    if not isinstance(value, str):
        raise Refused(NO_IDENTITY, f"{name} {value!r:.{_SHOWN}} is no text")
    text = value.strip()
    if len(text) > limit or not is_safe_name(text) or "\ufffd" in text:
        raise Refused(
            BAD_FIELD, f"{name} {text[:_SHOWN]!r} has a control character, broken text or over {limit} characters"
        )
    return text


def is_well_named(gpu: Gpu) -> bool:
    """Whether no text of the GPU has characters that ``describe_gpu`` would leave out or refuse."""
    names = (gpu.uuid, gpu.mig_id, *(getattr(gpu, name) for name in _TEXTS), *gpu.labels)
    return is_safe_name("".join(names)) and not any("\0" in text for text in gpu.labels.values())


def _fits(value: object, limit: int) -> bool:
    return isinstance(value, str) and value != "" and len(value) <= limit and is_safe_name(value)


def _is_label_value(value: object) -> bool:
    """Any text that a database takes: labels' values may have line breaks."""
    return isinstance(value, str) and len(value) <= MAX_LABEL and "\0" not in value


def _index(index: object) -> int | None:
    if isinstance(index, str):
        digits = index.strip()
        index = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 11 else None
    return index if isinstance(index, int) and not isinstance(index, bool) and 0 <= index <= MAX_INDEX else None


def _fitting(labels: Mapping[Any, Any], told: list[Remark]) -> dict[str, str]:
    kept: dict[str, str] = {}
    too_many = 0
    for name, value in labels.items():
        if not (_fits(name, MAX_NAME) and _is_label_value(value)):
            told.append(_left_out(f"label {name!r:.{_SHOWN}}", value, f"a text of at most {MAX_LABEL} characters"))
        elif len(kept) == MAX_LABELS:
            too_many += 1
        else:
            kept[name] = value
    if too_many:
        told.append(Remark(TOO_MANY_LABELS, f"{too_many} of {too_many + len(kept)} labels are left out"))
    return kept


def _left_out(name: str, value: object, wanted: str) -> Remark:
    return Remark(BAD_LABEL, f"{name} {value!r:.{_SHOWN}} is left out: wanted is {wanted}")
