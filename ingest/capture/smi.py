"""nvidia-smi's ``--query-gpu=… --format=csv`` as a capture: a row has one time, one GPU, and one value per queried field.

The fields are those of ``nvidia-smi --help-query-gpu``. Both tools ask the driver the same questions, so a field is stored under
DCGM's name for the same answer. Fields without such a name are left out and named.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import NamedTuple

from ingest.capture.header import CaptureHeader, Dialect, shown_names
from ingest.capture.rows import MAX_CACHED_GPUS, RowReadings
from ingest.errors import SourceError
from ingest.samples import Sample, make_gpu
from readings.checks import (
    BAD_NUMBER,
    BAD_TIMESTAMP,
    NO_IDENTITY,
    NOT_AVAILABLE,
    NOT_SUPPORTED,
    SHORT_ROW,
    Refused,
    parse_value,
)
from readings.labels import HOST_LABELS, is_blank_identity
from readings.model import DRIVER_LABEL, Gpu
from readings.times import parse_time

_DEV = "DCGM_FI_DEV_"
_UNITS: Mapping[str, Mapping[str, float]] = {
    "%": {"%": 1},
    "W": {"W": 1, "mW": 1e-3, "kW": 1e3},
    "MiB": {
        "MiB": 1,
        "KiB": 1 / 1024,
        "GiB": 1024,
        "kB": 1e3 / 1048576,
        "MB": 1e6 / 1048576,
        "GB": 1e9 / 1048576,
        "B": 1 / 1048576,
    },
    "MHz": {"MHz": 1, "kHz": 1e-3, "GHz": 1e3, "Hz": 1e-6},
    "C": {"C": 1, "°C": 1},
    "mJ": {"mJ": 1, "J": 1e3},
    "": {},
}
_SWITCH = {"enabled": 1.0, "disabled": 0.0, "yes": 1.0, "no": 0.0, "active": 1.0, "not active": 0.0, "pending": 1.0}
_ACTIONS = {"none": 0.0, "reset": 1.0, "reboot": 2.0, "drain p2p": 3.0, "drain and reset": 4.0}
_PSTATES = {f"p{number}": float(number) for number in range(33)}
_NO_WORDS: Mapping[str, float] = {}


class SmiField(NamedTuple):
    """A queried field: the metric, its unit (a key of the units), and the numbers that words stand for."""

    metric: str
    unit: str = ""
    words: Mapping[str, float] = _NO_WORDS


def _ecc(kind: str, name: str) -> dict[str, SmiField]:
    return {
        f"ecc.errors.{kind}.{span}.total": SmiField(f"{_DEV}ECC_{name}_{short}_TOTAL")
        for span, short in (("volatile", "VOL"), ("aggregate", "AGG"))
    }


FIELDS: Mapping[str, SmiField] = {
    "utilization.gpu": SmiField(_DEV + "GPU_UTIL", "%"),
    "utilization.memory": SmiField(_DEV + "MEM_COPY_UTIL", "%"),
    "utilization.encoder": SmiField(_DEV + "ENC_UTIL", "%"),
    "utilization.decoder": SmiField(_DEV + "DEC_UTIL", "%"),
    "memory.total": SmiField(_DEV + "FB_TOTAL", "MiB"),
    "memory.reserved": SmiField(_DEV + "FB_RESERVED", "MiB"),
    "memory.used": SmiField(_DEV + "FB_USED", "MiB"),
    "memory.free": SmiField(_DEV + "FB_FREE", "MiB"),
    "power.draw": SmiField(_DEV + "POWER_USAGE", "W"),
    "power.draw.instant": SmiField(_DEV + "POWER_USAGE_INSTANT", "W"),
    "power.limit": SmiField(_DEV + "POWER_MGMT_LIMIT", "W"),
    "enforced.power.limit": SmiField(_DEV + "ENFORCED_POWER_LIMIT", "W"),
    "power.default_limit": SmiField(_DEV + "POWER_MGMT_LIMIT_DEF", "W"),
    "power.min_limit": SmiField(_DEV + "POWER_MGMT_LIMIT_MIN", "W"),
    "power.max_limit": SmiField(_DEV + "POWER_MGMT_LIMIT_MAX", "W"),
    "total_energy_consumption": SmiField(_DEV + "TOTAL_ENERGY_CONSUMPTION", "mJ"),
    "temperature.gpu": SmiField(_DEV + "GPU_TEMP", "C"),
    "temperature.memory": SmiField(_DEV + "MEMORY_TEMP", "C"),
    "temperature.gpu.tlimit": SmiField(_DEV + "GPU_TEMP_MARGIN_CELSIUS", "C"),
    "clocks.sm": SmiField(_DEV + "SM_CLOCK", "MHz"),
    "clocks.current.sm": SmiField(_DEV + "SM_CLOCK", "MHz"),
    "clocks.mem": SmiField(_DEV + "MEM_CLOCK", "MHz"),
    "clocks.current.memory": SmiField(_DEV + "MEM_CLOCK", "MHz"),
    "clocks.video": SmiField(_DEV + "VIDEO_CLOCK", "MHz"),
    "clocks.current.video": SmiField(_DEV + "VIDEO_CLOCK", "MHz"),
    "clocks.max.sm": SmiField(_DEV + "MAX_SM_CLOCK", "MHz"),
    "clocks.max.mem": SmiField(_DEV + "MAX_MEM_CLOCK", "MHz"),
    "clocks.max.memory": SmiField(_DEV + "MAX_MEM_CLOCK", "MHz"),
    "clocks.applications.graphics": SmiField(_DEV + "APP_SM_CLOCK", "MHz"),
    "clocks.applications.memory": SmiField(_DEV + "APP_MEM_CLOCK", "MHz"),
    "clocks.applications.mem": SmiField(_DEV + "APP_MEM_CLOCK", "MHz"),
    "clocks_event_reasons.active": SmiField(_DEV + "CLOCKS_EVENT_REASONS"),
    "clocks_throttle_reasons.active": SmiField(_DEV + "CLOCKS_EVENT_REASONS"),
    "fan.speed": SmiField(_DEV + "FAN_SPEED", "%"),
    "pstate": SmiField(_DEV + "PSTATE", "", _PSTATES),
    "persistence_mode": SmiField(_DEV + "PERSISTENCE_MODE", "", _SWITCH),
    "mig.mode.current": SmiField(_DEV + "MIG_MODE", "", _SWITCH),
    "ecc.mode.current": SmiField(_DEV + "ECC_MODE", "", _SWITCH),
    **_ecc("corrected", "SBE"),
    **_ecc("uncorrected", "DBE"),
    "retired_pages.single_bit_ecc.count": SmiField(_DEV + "RETIRED_SBE"),
    "retired_pages.sbe": SmiField(_DEV + "RETIRED_SBE"),
    "retired_pages.double_bit.count": SmiField(_DEV + "RETIRED_DBE"),
    "retired_pages.dbe": SmiField(_DEV + "RETIRED_DBE"),
    "retired_pages.pending": SmiField(_DEV + "RETIRED_PENDING", "", _SWITCH),
    "remapped_rows.correctable": SmiField(_DEV + "CORRECTABLE_REMAPPED_ROWS"),
    "remapped_rows.uncorrectable": SmiField(_DEV + "UNCORRECTABLE_REMAPPED_ROWS"),
    "remapped_rows.pending": SmiField(_DEV + "ROW_REMAP_PENDING", "", _SWITCH),
    "remapped_rows.failure": SmiField(_DEV + "ROW_REMAP_FAILURE", "", _SWITCH),
    "pcie.link.gen.current": SmiField(_DEV + "PCIE_LINK_GEN"),
    "pcie.link.gen.gpucurrent": SmiField(_DEV + "PCIE_LINK_GEN"),
    "pcie.link.gen.max": SmiField(_DEV + "PCIE_MAX_LINK_GEN"),
    "pcie.link.width.current": SmiField(_DEV + "PCIE_LINK_WIDTH"),
    "pcie.link.width.max": SmiField(_DEV + "PCIE_MAX_LINK_WIDTH"),
    "gpu_recovery_action": SmiField(_DEV + "GPU_RECOVERY_ACTION", "", _ACTIONS),
}
# What describes a GPU, under nvidia-smi's older names too.
_IDENTITY: Mapping[str, str] = {
    "timestamp": "timestamp",
    "uuid": "uuid",
    "gpu_uuid": "uuid",
    "index": "gpu_id",
    "name": "model_name",
    "gpu_name": "model_name",
    "serial": "serial",
    "gpu_serial": "serial",
    "pci.bus_id": "bus_id",
    "gpu_bus_id": "bus_id",
    "driver_version": DRIVER_LABEL,
    "vbios_version": _DEV + "VBIOS_VERSION",
    **{name.lower(): "hostname" for name in HOST_LABELS},
}
_LABELS = {
    "serial": _DEV + "SERIAL",
    "bus_id": "pci_bus_id",
    DRIVER_LABEL: DRIVER_LABEL,
    _DEV + "VBIOS_VERSION": _DEV + "VBIOS_VERSION",
}
WANTED = "nvidia-smi --query-gpu=timestamp,uuid,index,name,… --format=csv"

_COLUMN = re.compile(r"([^\[\]]*?)\s*(?:\[([^\[\]]*)\])?")
_CELL = re.compile(r"([-+.,0-9eE]+)\s*(\D.*)?", re.DOTALL)
_HEX = re.compile(r"0[xX][0-9a-fA-F]{1,16}")
_MAX_CACHED_CELLS = 50_000


class SmiColumn(NamedTuple):
    """A column of values: its number, its name for people, and the factor of numbers that name no unit."""

    at: int
    title: str
    field: SmiField
    factor: float


@dataclass(frozen=True, slots=True)
class SmiHeader(CaptureHeader):
    """The header of nvidia-smi's output. ``left_out`` names the columns that give no readings."""

    values: tuple[SmiColumn, ...] = ()
    left_out: tuple[str, ...] = ()


def parse_smi_header(fields: Sequence[str], *, needs_timestamp: bool, delimiter: str) -> SmiHeader | None:
    """Parse the first record of nvidia-smi's output; None for any other. Raises SourceError for missing and duplicate columns."""
    names = tuple(field.strip() for field in fields)
    split = [match.groups(default="") if (match := _COLUMN.fullmatch(name)) else (name, "") for name in names]
    keys = [key.lower() for key, _ in split]
    if not any(key in FIELDS for key in keys) or {"metric_name", "value"} & set(keys):
        return None
    columns: dict[str, tuple[int, ...]] = {}
    values, left_out = [], []
    taken: dict[str, str] = {}
    for at, (key, (_, unit)) in enumerate(zip(keys, split, strict=True)):
        field = FIELDS.get(key)
        identity = _IDENTITY.get(key)
        target = identity or (field.metric if field else "")
        if not target:
            left_out.append(names[at])
            continue
        if target in taken:
            raise SourceError(f"the header has several columns for {target}: {taken[target]!r} and {names[at]!r}")
        taken[target] = names[at]
        if identity:
            columns[identity] = (at,)
        elif field:
            factor = _factor(field, unit)
            if factor is None:
                raise SourceError(
                    f"the column {names[at]!r} has a unit that is not known here: wanted is {field.unit or 'none'}"
                )
            values.append(SmiColumn(at, names[at], field, factor))
    if needs_timestamp and "timestamp" not in columns:
        raise SourceError(
            f"this is nvidia-smi's output without timestamp: add it ({WANTED}), or stream it with TIMESTAMPS=now "
            "(--timestamps now), which gives readings the time of sending"
        )
    if not {"uuid", "serial", "bus_id"} & set(columns):
        raise SourceError(
            f"this is nvidia-smi's output without uuid: nothing tells which GPU a row is of; it has {shown_names(names)}; "
            f"add uuid ({WANTED})"
        )
    return SmiHeader(
        names,
        columns,
        (),
        Dialect(delimiter, blanks_after=True),
        tuple(values),
        tuple(name for name in left_out if name),
    )


def _factor(field: SmiField, unit: str) -> float | None:
    """What numbers in this unit are multiplied with; None if the unit is not one of the field's."""
    return 1.0 if not unit else _UNITS[field.unit].get(unit)


class SmiRows:
    """Reads rows of nvidia-smi's output. ``hostname``: the machine that it ran on, unless a column says so."""

    def __init__(self, header: SmiHeader, *, needs_timestamp: bool, hostname: str, zone: tzinfo = UTC) -> None:
        self._header = header
        self._width = len(header.names)
        self._hostname = hostname
        self._zone = zone
        self._time_column = header.column("timestamp") if needs_timestamp else None
        self._identity = [(name, at) for name, (at, *_) in header.columns.items() if name != "timestamp"]
        self._remarks: Counter[str] = Counter()
        self._gpus: dict[tuple[str, ...], tuple[Gpu, frozenset[str]]] = {}
        self._cells: list[dict[str, float | Refused]] = [{} for _ in header.values]

    def take_remarks(self) -> Counter[str]:
        """The rows by remark, and the values passed over, since the last call."""
        remarks, self._remarks = self._remarks, Counter()
        return remarks

    def read_all(self, fields: Sequence[str]) -> RowReadings:
        """The readings of a row. Raises Refused if its time or its GPU cannot be read."""
        if len(fields) < self._width or any(fields[self._width :]):
            raise Refused(SHORT_ROW, f"{len(fields)} fields where the header has {self._width}")
        time_ns = 0
        if self._time_column is not None:
            try:
                time_ns = parse_time(fields[self._time_column], self._zone)
            except ValueError as error:
                raise Refused(BAD_TIMESTAMP, str(error)) from None
        gpu, reasons = self._describe(fields)
        samples: list[Sample] = []
        refused: list[Refused] = []
        for column, cells in zip(self._header.values, self._cells, strict=True):
            text = fields[column.at]
            value = cells.get(text)
            if value is None:
                if len(cells) >= _MAX_CACHED_CELLS:
                    cells.clear()
                value = cells[text] = self._read_cell(column, text)
            if isinstance(value, float):
                samples.append(Sample(gpu, column.field.metric, time_ns, value))
            elif value.reason == NOT_SUPPORTED:
                self._remarks[NOT_SUPPORTED] += 1
            else:
                refused.append(value)
        self._remarks.update(reasons)
        return RowReadings(samples, refused)

    def _describe(self, fields: Sequence[str]) -> tuple[Gpu, frozenset[str]]:
        key = tuple(fields[at] for _, at in self._identity)
        found = self._gpus.get(key)
        if found is None:
            if len(self._gpus) >= MAX_CACHED_GPUS:
                self._gpus.clear()
            found = self._gpus[key] = self._describe_anew(fields)
        return found

    def _describe_anew(self, fields: Sequence[str]) -> tuple[Gpu, frozenset[str]]:
        texts = {name: fields[at].strip() for name, at in self._identity}
        texts = {name: text for name, text in texts.items() if not is_blank_identity(text)}
        host = texts.get("hostname") or self._hostname
        uuid = texts.get("uuid", "")
        if not uuid and "serial" in texts:
            uuid = f"serial-{texts['serial']}"
        if not uuid and "bus_id" in texts:
            uuid = f"{host}-{texts['bus_id'].replace(':', '-')}"
        if not uuid:
            raise Refused(NO_IDENTITY, "neither uuid, serial nor pci.bus_id says which GPU this is")
        identity = {"uuid": uuid, "hostname": host}
        identity |= {name: texts[name] for name in ("gpu_id", "model_name") if name in texts}
        if "gpu_id" in texts and texts["gpu_id"].isdecimal():
            identity["device"] = f"nvidia{texts['gpu_id']}"
        gpu, remarks = make_gpu(identity, {label: texts[name] for name, label in _LABELS.items() if name in texts})
        return gpu, frozenset(remark.reason for remark in remarks)

    def _read_cell(self, column: SmiColumn, text: str) -> float | Refused:
        try:
            return self._number(column, text.strip())
        except Refused as error:
            return Refused(error.reason, f"{column.title}: {error.detail}")

    def _number(self, column: SmiColumn, text: str) -> float:
        field, word = column.field, text.lower()
        if word in field.words:
            return field.words[word]
        if word in {"n/a", "[n/a]", "not supported", "[not supported]", "not active"}:
            raise Refused(NOT_SUPPORTED, f"value {text[:80]!r}")
        if word.startswith("err"):
            raise Refused(NOT_AVAILABLE, f"value {text[:80]!r}")
        if _HEX.fullmatch(text):
            return float(int(text, 16))
        match = _CELL.fullmatch(text)
        if match is None:
            return parse_value(text)
        number, unit = match.groups()
        factor = column.factor if unit is None else _factor(field, unit.strip())
        if factor is None:
            raise Refused(BAD_NUMBER, f"value {text[:80]!r}: the unit is not {field.unit or 'none'}")
        if self._header.dialect.decimal_comma:
            number = number.replace(",", ".")
        value = parse_value(number)
        return value if factor == 1 else value * factor
