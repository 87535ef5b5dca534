"""Prometheus labels as one text, as the column ``labels_raw`` of a capture holds them: ``UUID="GPU-…",gpu="0"``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from readings.catalogue import PART_LABELS
from readings.model import DRIVER_LABEL

# What Prometheus adds on its own account: which series, which scrape job, which target. They say nothing of the GPU.
DROPPED = frozenset({"__name__", "job", "instance"})

# name = " value " then a comma or the end. A value is anything but a bare quote or backslash, or an escaped character.
_PAIR = re.compile(r'\s*([^\s=,{}"]+)\s*=\s*"([^"\\]*(?:\\.[^"\\]*)*)"\s*(?:,|$)', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", '"': '"', "\\": "\\"}

_NAME = '__name__="'
_NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_: ")

# Column <- the labels it is seen under, the preferred one first. With honorLabels=false Prometheus moves the workload's labels
# to exported_*, and the plain ones are then the exporter's own pod.
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
# Of a reading, not of its GPU: they come and go with values, or tell which of several parts a row is of.
_OF_READINGS = {*PART_LABELS, "err_code", "err_msg", "health_error_code", "window_size_in_ms"}
_HPC_JOB = "hpc_job"
_NO_EXTRA = DROPPED.union(_OF_READINGS, {_HPC_JOB}, *_COLUMNS.values())
# Labels that exporters have renamed: new -> the name they are kept under.
_RENAMED = {
    "DCGM_FI_SYSTEM_DRIVER_VERSION": DRIVER_LABEL,
    "DCGM_FI_DEV_BOARD_SERIAL": "DCGM_FI_DEV_SERIAL",
}


def is_blank_text(value: str) -> bool:
    """Whether it is one of DCGM's blank strings: ``<<<NULL>>>``, ``<<<NOT_SUPPORTED>>>``, …"""
    return value.startswith("<<<") and value.endswith(">>>")


def _says(value: str) -> bool:
    return value != "" and not is_blank_text(value)


def parse_labels(text: str) -> dict[str, str]:
    r"""The labels of ``name="value",name="value"``, with ``\\``, ``\"`` and ``\n`` resolved, without ``__name__``, job, instance.

    Braces around the whole and a comma at its end are accepted. A label with an empty value is, as in Prometheus, no
    label; a blank of DCGM is none either. Raises ValueError, with the place, for anything else.
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
            value = _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[0]), value)
        if labels.setdefault(name, value) != value:
            raise ValueError(f"bad labels: {name} is given twice with different values")
    return {name: value for name, value in labels.items() if _says(value)}


def without_name(text: str) -> str:
    """The same labels without ``__name__``, in which the metrics of a GPU differ; as they are where it is not beyond doubt that
    taking it out changes nothing else, and makes no bad labels good.

    A quote that ends a value is not preceded by = or a blank (it would begin one) nor by a backslash: what stands after it is
    a label by itself.
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
    """Labels as (columns, extras): what describes the GPU under our column names, and what is no column.

    Every spelling that exporters have used is folded. Columns: uuid, gpu_id (text), device, hostname, model_name, mig_id,
    mig_profile, pod, namespace, container; those not told are absent. A batch job (``hpc_job``) counts as a pod. What tells of one
    reading only (which link, an error's text) is in neither.
    """
    columns = {}
    for column, names in _COLUMNS.items():
        value = next((labels[name] for name in names if _says(labels.get(name, ""))), None)
        if value is not None:
            columns[column] = value
    if _HPC_JOB in labels and "pod" not in columns and _says(labels[_HPC_JOB]):
        # A batch job is to a bare host what a pod is to a cluster: several rows for one GPU are shares of it.
        columns |= {"namespace": _HPC_JOB, "pod": labels[_HPC_JOB]}
    extras = {
        _RENAMED.get(name, name): value for name, value in labels.items() if name not in _NO_EXTRA and _says(value)
    }
    return columns, extras


def label_conflicts(columns: Mapping[str, str], told: Mapping[str, str]) -> list[str]:
    """Names of the columns for which the labels tell something else than the row itself. Absent or empty is no conflict."""
    return [
        name
        for name, value in columns.items()
        if value and told.get(name) and _fold(name, value) != _fold(name, told[name])
    ]


def _fold(column: str, value: str) -> str:
    # Exporters may write a model's name with dashes for its blanks.
    return value.replace("-", " ") if column == "model_name" else value
