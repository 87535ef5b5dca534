"""Prometheus labels, as one text (``UUID="GPU-…",gpu="0"``, as in a capture's ``labels_raw``) and as columns."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

from readings.catalogue import PART_LABELS, info
from readings.model import DRIVER_LABEL

# Added by Prometheus itself: the series and the scrape job. They say nothing about the GPU.
DROPPED = frozenset({"__name__", "job"})

# Remarks on labels: see readings.checks.REMARKS.
BAD_LABEL = "bad_label"
REPEATED_LABEL = "repeated_label"

# name="value" and a comma or the end. A value has no bare quotes or backslashes, only escaped ones. No quantifier gives back what
# it took, so each character is read once.
_PAIR = re.compile(
    r'\s*+(?:"((?:[^"\\]++|\\.)++)"|([^\s=,{}"]++))\s*+=\s*+"((?:[^"\\]++|\\.)*+)"\s*+(?:,|\Z)', re.DOTALL
)
# Where labels may go on after one that cannot be read.
_NEXT = re.compile(r',(?=\s*+[^\s=,{}"]++\s*+=\s*+")')
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", '"': '"', "\\": "\\"}

_NAME = '__name__="'
_NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_: ")

UUID_LABELS = ("UUID", "uuid", "gpu_uuid")
# The host that a row is of, in labels and in columns of captures alike. What the exporter says of itself comes first, then what a
# Prometheus between us and it has added: one that reads another (/federate) moves the first one's instance to exported_instance.
HOST_LABELS = ("hostname", "Hostname", "exported_instance", "instance", "node", "kubernetes_node", "host")
# A row that says this was read beside its exporter: any other name of the host is better.
LOOPBACK = frozenset({"localhost", "localhost.localdomain", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 - compared only
# These name a MIG instance: without them a reading would pass for the whole GPU's.
INSTANCE_LABELS = ("GPU_I_ID", "GPU_I_PROFILE", "dra_mig_profile")

# Column <- its labels, the preferred one first. With honorLabels=false Prometheus moves the workload's labels to
# exported_*; the plain ones then name the exporter's own pod.
_COLUMNS: dict[str, tuple[str, ...]] = {
    "gpu_id": ("gpu", "gpu_id", "index"),
    "device": ("device",),
    "model_name": ("modelName", "model_name", "modelname"),
    "mig_id": ("GPU_I_ID",),
    "mig_profile": ("GPU_I_PROFILE", "dra_mig_profile"),
    "pod": ("exported_pod", "pod", "pod_name"),
    "namespace": ("exported_namespace", "namespace", "pod_namespace"),
    "container": ("exported_container", "container", "container_name"),
}
# These describe a reading, not its GPU: they come and go with values, or name one of several parts.
_OF_READINGS = {*PART_LABELS, "err_code", "err_msg", "health_error_code", "link_status", "window_size_in_ms"}
_HPC_JOB = "hpc_job"
# The slice of a GPU (time slicing, MPS) that a row's pod was given. Exporters repeat the device's values for each.
SLICE_LABEL = "vgpu"
# Labels that say who uses a GPU, and labels that say where a row comes from and which GPU it is of. Neither names a part.
OWNER_LABELS = frozenset(
    {
        *("exported_pod", "pod", "pod_name", "pod_uid", "exported_namespace", "namespace", "pod_namespace"),
        *("exported_container", "container", "container_name", SLICE_LABEL, _HPC_JOB, "job_id", "cluster_job_id"),
        *("pid", "process_id", "process_name", "user", "username", "uid"),
        *("dra_claim_name", "dra_claim_namespace", "dra_driver_name", "dra_pool_name", "dra_device_name"),
    }
)
SOURCE_LABELS = (
    DROPPED.union(
        UUID_LABELS,
        HOST_LABELS,
        ("exported_job", "endpoint", "service", "prometheus", "cluster", "pci_bus_id"),
        *_COLUMNS.values(),
    )
    - OWNER_LABELS
)
Labelled = Iterable[tuple[str, str]]
# DCGM also tells of these. Their rows have no GPU.
_OTHER_DEVICES = frozenset({"cpu", "cpucore", "nvswitch", "switch", "nvlink", "link"})
_GPU_INDEX = (*UUID_LABELS, *_COLUMNS["gpu_id"])
_GPU_LABELS = frozenset(
    ("device", "modelName", "model_name", "modelname", "pci_bus_id", "DCGM_FI_DEV_SERIAL", *INSTANCE_LABELS)
)
_NO_EXTRA = DROPPED.union(
    _OF_READINGS, {_HPC_JOB, "exported_instance", "instance", "hostname", "Hostname"}, UUID_LABELS, *_COLUMNS.values()
)
# Renamed by exporters: new name -> the name under which the label is stored.
_RENAMED = {
    "DCGM_FI_SYSTEM_DRIVER_VERSION": DRIVER_LABEL,
    "DCGM_FI_DEV_BOARD_SERIAL": "DCGM_FI_DEV_SERIAL",
}
_NO_IDENTITY = frozenset(
    {
        *(
            "",
            "-",
            "--",
            "?",
            "n/a",
            "na",
            "nan",
            "nil",
            "none",
            "null",
            "(null)",
            "(none)",
            "undefined",
            "invalid",
            "gpu",
            "mig",
        ),
        *("unknown", "unknown error", "error", "not supported", "not_supported", "not available", "not_available"),
    }
)
# The last digits of a uuid that may be blank.
_UNIFORM = frozenset({"0" * 8, "f" * 8, "F" * 8})
_SHOWN = 80


class Remark(NamedTuple):
    """Something of a row that was not needed and is left out; the reading is taken. ``reason`` is a key of REMARKS."""

    reason: str
    detail: str


class Labels(NamedTuple):
    """Labels by name, and a remark on each that is left out."""

    values: dict[str, str]
    remarks: list[Remark]


def is_blank_text(value: str) -> bool:
    """Whether this is one of DCGM's blank strings: ``<<<NULL>>>``, ``<<<NOT_SUPPORTED>>>``, …"""
    return value.startswith("<<<") and value.endswith(">>>")


def is_blank_identity(uuid: str) -> bool:
    """Whether this names no GPU: empty, digits that are all 0 or all f, ``N/A``, a blank of DCGM."""
    text = uuid.strip()
    if len(text) > 14 and text[0] not in "<[0fF" and text[-8:] not in _UNIFORM:
        return False  # nearly all
    digits = text.lower().removeprefix("gpu-").removeprefix("mig-")
    return (
        digits in _NO_IDENTITY
        or (len(digits) >= 8 and not (digits.strip("0x-") and digits.strip("f-")))
        or is_blank_text(text)
        or (text.startswith("[") and text.endswith("]"))
    )


def _has_value(value: str) -> bool:
    return value != "" and not is_blank_text(value)


def read_labels(text: str) -> Labels:
    r"""Reads ``name="value",name="value"``. Resolves ``\\``, ``\"`` and ``\n``; drops ``__name__`` and job.

    Accepts braces around the whole and a comma at its end. An empty value is no label, as in Prometheus, and neither is
    a blank of DCGM. What cannot be read is left out up to the next label, with a remark; of a label that is there twice the first
    counts. Takes time in proportion to the text. Raises ValueError if what cannot be read names a MIG instance: the reading must
    not pass for the whole GPU's.
    """
    body = text.strip()
    if body.startswith("{") and body.endswith("}"):
        body = body[1:-1].rstrip()
    labels: dict[str, str] = {}
    remarks: list[Remark] = []
    position = 0
    while position < len(body):
        match = _PAIR.match(body, position)
        if match is None:
            following = _NEXT.search(body, position)
            end = len(body) if following is None else following.start()
            _leave_out(body[position:end], position, remarks)
            position = end + 1
            continue
        quoted, name, value = match.groups()
        position = match.end()
        if quoted is not None:
            name = _unescaped(quoted)
        if name in DROPPED:
            continue
        value = _unescaped(value)
        if labels.setdefault(name, value) != value:
            remarks.append(
                Remark(
                    REPEATED_LABEL,
                    f"label {name[:_SHOWN]!r} is there twice: the first value {labels[name][:_SHOWN]!r} is taken",
                )
            )
    return Labels({name: value for name, value in labels.items() if _has_value(value) or name in UUID_LABELS}, remarks)


def _leave_out(piece: str, position: int, remarks: list[Remark]) -> None:
    where = f'character {position + 1}: expected name="value", found {piece[:_SHOWN]!r}'
    if any(name in piece for name in INSTANCE_LABELS):
        raise ValueError(f"the labels of the MIG instance cannot be read at {where}")
    if len(remarks) < 10:  # a text of nothing but commas has no more to say
        remarks.append(Remark(BAD_LABEL, f"labels at {where}"))


def _unescaped(value: str) -> str:
    if "\\" not in value:
        return value
    return _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[0]), value)


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


def is_loopback(host: str) -> bool:
    """Whether this is a name or an address of the machine itself, whichever it is."""
    return host.lower() in LOOPBACK or (host.startswith("127.") and not host.strip("0123456789."))


def host_of(labels: Mapping[str, str]) -> str:
    """The host that a row says it is of, or an empty text. Of an ``instance`` it is the address without the port.

    A loopback name counts only where nothing else is told.
    """
    found = ""
    for name in HOST_LABELS:
        host = labels.get(name, "").strip()
        if name.endswith("instance"):
            host = without_port(host)
        if host and not is_blank_text(host):
            if not is_loopback(host):
                return host
            found = host
    return found


def without_port(address: str) -> str:
    """``host`` of ``host:port``, ``[host]:port`` and ``scheme://host:port/path``."""
    host = address.rpartition("://")[2].partition("/")[0]
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host


def split_labels(labels: Mapping[str, str], of_readings: Container[str] = ()) -> tuple[dict[str, str], dict[str, str]]:
    """Splits labels into columns, under our names, and extras.

    Takes every spelling that exporters have used. The columns are uuid, gpu_id (as text), device, hostname, model_name,
    mig_id, mig_profile, pod, namespace and container, where given. A batch job (``hpc_job``) counts as a pod. Labels
    of a single reading (which link, an error's text, and those in ``of_readings``) are in neither.
    """
    columns = {}
    uuid = next((uuid for name in UUID_LABELS if not is_blank_identity(uuid := labels.get(name, ""))), None)
    if uuid is not None:
        columns["uuid"] = uuid
    for column, names in _COLUMNS.items():
        value = next((labels[name] for name in names if _has_value(labels.get(name, ""))), None)
        if value is not None:
            columns[column] = value
    if host := host_of(labels):
        columns["hostname"] = host
    if _HPC_JOB in labels and "pod" not in columns and _has_value(labels[_HPC_JOB]):
        # A batch job on a bare host corresponds to a pod in a cluster: several rows for one GPU are shares of it.
        columns |= {"namespace": _HPC_JOB, "pod": labels[_HPC_JOB]}
    extras = {
        _RENAMED.get(name, name): value
        for name, value in labels.items()
        if name not in _NO_EXTRA and name not in of_readings and _has_value(value)
    }
    return columns, extras


def is_of_no_gpu(labels: Mapping[str, str], metric_name: str = "") -> bool:
    """Whether a row without a uuid is by design of no GPU: one of a CPU, a switch or a link, without even a GPU's index.

    So are rows that name nothing of a GPU, of a metric that is in no catalogue of GPUs: DCGM also tells of network adapters, racks
    and itself.
    """
    if any(name in labels for name in _GPU_INDEX):
        return False
    if not _OTHER_DEVICES.isdisjoint(labels):
        return True
    return metric_name != "" and info(metric_name) is None and _GPU_LABELS.isdisjoint(labels)


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
