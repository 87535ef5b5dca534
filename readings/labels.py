"""Prometheus labels, as one text (``UUID="GPU-…",gpu="0"``, as in a capture's ``labels_raw``) and as columns."""

from __future__ import annotations

import re
from collections.abc import Mapping

from readings.catalogue import PART_LABELS
from readings.model import DRIVER_LABEL

# Added by Prometheus itself: the series, the scrape job and the target. They say nothing about the GPU.
DROPPED = frozenset({"__name__", "job", "instance"})

# name="value" and a comma or the end. A value has no bare quotes or backslashes, only escaped ones.
_PAIR = re.compile(r'\s*([^\s=,{}"]+)\s*=\s*"([^"\\]*(?:\\.[^"\\]*)*)"\s*(?:,|$)', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", '"': '"', "\\": "\\"}

_NAME = '__name__="'
_NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_: ")

# Column <- its labels, the preferred one first. With honorLabels=false Prometheus moves the workload's labels to
# exported_*; the plain ones then name the exporter's own pod.
_COLUMNS: dict[str, tuple[str, ...]] = {
    "uuid": ("UUID", "uuid", "gpu_uuid"),
    "gpu_id": ("gpu", "gpu_id", "index"),
    "device": ("device",),
    "hostname": ("hostname", "Hostname"),
    "model_name": ("modelName", "model_name", "modelname"),
    "mig_id": ("GPU_I_ID",),
    "mig_profile": ("GPU_I_PROFILE", "dra_mig_profile"),
    "pod": ("exported_pod", "pod", "pod_name"),
    "namespace": ("exported_namespace", "namespace", "pod_namespace"),
    "container": ("exported_container", "container", "container_name"),
}
# These describe a reading, not its GPU: they come and go with values, or name one of several parts.
_OF_READINGS = {*PART_LABELS, "err_code", "err_msg", "health_error_code", "window_size_in_ms"}
_HPC_JOB = "hpc_job"
_NO_EXTRA = DROPPED.union(_OF_READINGS, {_HPC_JOB}, *_COLUMNS.values())
# Renamed by exporters: new name -> the name under which the label is stored.
_RENAMED = {
    "DCGM_FI_SYSTEM_DRIVER_VERSION": DRIVER_LABEL,
    "DCGM_FI_DEV_BOARD_SERIAL": "DCGM_FI_DEV_SERIAL",
}


def is_blank_text(value: str) -> bool:
    """Whether this is one of DCGM's blank strings: ``<<<NULL>>>``, ``<<<NOT_SUPPORTED>>>``, …"""
    return value.startswith("<<<") and value.endswith(">>>")


def _has_value(value: str) -> bool:
    return value != "" and not is_blank_text(value)


def parse_labels(text: str) -> dict[str, str]:
    r"""Parses ``name="value",name="value"``. Resolves ``\\``, ``\"`` and ``\n``; drops ``__name__``, job and instance.

    Accepts braces around the whole and a comma at its end. An empty value is no label, as in Prometheus, and neither is
    a blank of DCGM. Raises ValueError, with the position, for anything else.
    """
    body = text.strip()
    if body.startswith("{") and body.endswith("}"):
        body = body[1:-1].rstrip()
    labels: dict[str, str] = {}
    position = 0
    while position < len(body):
        match = _PAIR.match(body, position)
        if match is None:
            raise ValueError(
                f'bad labels at character {position + 1}: expected name="value", found {body[position : position + 40]!r}'
            )
        name, value = match.groups()
        position = match.end()
        if name in DROPPED:
            continue
        if "\\" in value:
            value = _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[0]), value)
        if labels.setdefault(name, value) != value:
            raise ValueError(f"bad labels: {name} is given twice with different values")
    return {name: value for name, value in labels.items() if _has_value(value)}


def without_name(text: str) -> str:
    """Removes ``__name__``, so that the labels of all metrics of a GPU are one text.

    Returns the text unchanged if in doubt: the rest must parse, or fail to parse, as before. A quote ends a value,
    so that a label begins after it, if no =, blank or backslash precedes it.
    """
    if text.startswith(_NAME):
        start, value = 0, len(_NAME)
    else:
        start = text.find("," + _NAME)
        value = start + 1 + len(_NAME)
        if start < 2 or text[start - 1] != '"' or text[start - 2] in "=\\" or text[start - 2].isspace():
            return text
    end = text.find('"', value)
    if end < 0 or text[end + 1 : end + 2] not in {"", ","} or not _NAME_CHARACTERS.issuperset(text[value:end]):
        return text
    if start:
        return text[:start] + text[end + 1 :]
    rest = text[end + 2 :]
    return rest if not rest or rest[0].isalnum() else text


def split_labels(labels: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Splits labels into columns, under our names, and extras.

    Takes every spelling that exporters have used. The columns are uuid, gpu_id (as text), device, hostname, model_name,
    mig_id, mig_profile, pod, namespace and container, where given. A batch job (``hpc_job``) counts as a pod. Labels
    of a single reading (which link, an error's text) are in neither.
    """
    columns = {}
    for column, names in _COLUMNS.items():
        value = next((labels[name] for name in names if _has_value(labels.get(name, ""))), None)
        if value is not None:
            columns[column] = value
    if _HPC_JOB in labels and "pod" not in columns and _has_value(labels[_HPC_JOB]):
        # A batch job on a bare host corresponds to a pod in a cluster: several rows for one GPU are shares of it.
        columns |= {"namespace": _HPC_JOB, "pod": labels[_HPC_JOB]}
    extras = {
        _RENAMED.get(name, name): value for name, value in labels.items() if name not in _NO_EXTRA and _has_value(value)
    }
    return columns, extras


def label_conflicts(columns: Mapping[str, str], labels: Mapping[str, str]) -> list[str]:
    """The columns that the labels contradict. An absent or empty value is no conflict."""
    return [
        name
        for name, value in columns.items()
        if value and labels.get(name) and _fold(name, value) != _fold(name, labels[name])
    ]


def _fold(column: str, value: str) -> str:
    # Some exporters write a model's name with dashes for blanks.
    return value.replace("-", " ") if column == "model_name" else value
