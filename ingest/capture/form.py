"""Recognises the form of a capture by its first lines: one row per metric, nvidia-smi's output, or something else with a name."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence

from ingest.capture.header import CaptureHeader, Dialect, parse_header
from ingest.capture.smi import FIELDS, WANTED, parse_smi_header
from ingest.errors import SourceError
from readings.catalogue import CATALOGUE, canonical_name
from readings.checks import Refused, parse_value
from readings.times import parse_time

_SEPARATORS = ",;\t"
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t])"?\s*', re.IGNORECASE)
_ROWS = f"wanted is one row per metric (timestamp, metric_name, value, uuid …), or {WANTED}"
_SCRAPE = "the text that an exporter answers a scrape with: scrape the exporter itself (SOURCE=dcgm, --source dcgm)"
# What a file begins with, and what it is.
_OTHERS = (
    (r"#\s*(HELP|TYPE|EOF)\b", _SCRAPE),
    (r"[A-Za-z_:][\w:]*\{[^,;\n]*=", _SCRAPE),
    (r"[A-Za-z_]\w*(,[^\s,=]+=[^\s,=]+)+ [^\s=]+=\S+( \d+)?\s*$", "InfluxDB's line protocol"),
    (r"#(datatype|group|default)\b", "InfluxDB's annotated CSV"),
    (r"[{\[]\s*([\"{\[]|$)", "JSON"),
    (r"<", "XML or HTML"),
    (r"PAR1", "a Parquet file"),
    (r"SQLite format 3", "an SQLite database"),
    (r"=+\s*NVSMI LOG", "nvidia-smi's full report (-q)"),
    (r"#\s*(gpu|Date)\b", "the table of nvidia-smi dmon or pmon"),
    (r"#?\s*Entity\b", "the table of dcgmi dmon"),
    (r"\+-{10,}|\|\s*NVIDIA-SMI", "nvidia-smi's table"),
    (r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d", "nvidia-smi's table"),
)
_OTHER_FORMS = tuple((re.compile(pattern), name) for pattern, name in _OTHERS)


def separator_line(line: str) -> str | None:
    """The separator that a spreadsheet's first line names (``sep=;``); None for any other line."""
    match = _SEPARATOR_LINE.fullmatch(line)
    return match[1] if match else None


def find_separator(line: str) -> str:
    """What separates the fields of a header: that which gives the most."""
    return max(_SEPARATORS, key=lambda each: len(fields_of(line, each)))


def fields_of(line: str, delimiter: str) -> list[str]:
    """The fields of a line, none where it is no CSV."""
    try:
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return []


def recognise(fields: Sequence[str], *, needs_timestamp: bool, delimiter: str) -> CaptureHeader:
    """The header in a capture's first record. Raises SourceError, which names what else it is where that is known."""
    lowered = {field.strip().lower() for field in fields}
    if not {"metric_name", "metric", "__name__", "value"} & lowered:
        smi = parse_smi_header(fields, needs_timestamp=needs_timestamp, delimiter=delimiter)
        if smi is not None:
            return smi
        name = _other_form(delimiter.join(fields)) or _other_table(fields)
        if name:
            raise SourceError(f"this is {name}; {_ROWS}")
        if _is_data(fields):
            raise SourceError(
                "begins with a row, not with a header: nothing says what the columns are. Name them with CSV_COLUMNS "
                "(--columns), as nvidia-smi was given them: --columns timestamp,uuid,index,utilization.gpu"
            )
    return parse_header(fields, needs_timestamp=needs_timestamp, dialect=Dialect(delimiter))


def is_header(fields: Sequence[str]) -> bool:
    """Whether a record is a header of any form that can be read, complete or not."""
    names = {field.strip().lower().partition("[")[0].strip() for field in fields}
    return {"metric_name", "value"} <= names or bool(names & {*FIELDS, "timestamp", "uuid", "index"})


def _other_form(start: str) -> str | None:
    return next((name for pattern, name in _OTHER_FORMS if pattern.match(start[:4096].lstrip())), None)


def _other_table(fields: Sequence[str]) -> str | None:
    names = [field.strip() for field in fields]
    if {"pid", "process_name"} & {name.lower() for name in names}:
        return "nvidia-smi's list of processes, which has no metrics of GPUs"
    metric = next((name for name in names if canonical_name(name.partition("{")[0]) in CATALOGUE), None)
    return f"a table with a column per metric ({metric[:80]!r})" if metric else None


def _is_data(fields: Sequence[str]) -> bool:
    return any(field.strip().upper().startswith(("GPU-", "[N/A]")) or _is_number_or_time(field) for field in fields)


def _is_number_or_time(text: str) -> bool:
    for parse in (parse_time, parse_value):
        try:
            parse(text)
        except (ValueError, Refused):
            continue
        return True
    return False
