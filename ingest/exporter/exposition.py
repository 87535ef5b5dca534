"""Reads an exporter's /metrics page: Prometheus' format, OpenMetrics, and what exporters make of them.

All of a line but its value is the same in each scrape, so it is parsed once: faster than a parser that makes an object per line.
A bad line costs that line alone, where a strict parser loses the whole scrape.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ingest.samples import NamingLabels, RefusedRow, Sample, make_gpu, metric_namer, naming_labels
from readings.checks import BAD_FIELD, BAD_TIMESTAMP, NO_IDENTITY, Refusal, Refused, parse_value
from readings.labels import parse_labels, split_labels
from readings.model import Gpu
from readings.times import SECOND, parse_time
from readings.units import Folded, SourceUnits

MAX_SHOWN = 4096
# An answer with more bad lines than this for each reading is not metrics at all.
_BAD_PER_GOOD = 2
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABELS = re.compile(r'\{(?:[^"{}]|"[^"\\]*(?:\\.[^"\\]*)*")*\}', re.DOTALL)
_HELP = re.compile(r"^#[ \t]+HELP[ \t]+(\S+)[ \t]+(.*)$", re.MULTILINE)
_EXEMPLAR = re.compile(r'(\}[ \t]*[^\s"]+(?:[ \t]+[0-9.]+)?) # \{[^\n]*$', re.MULTILINE)
_WIDE = re.compile(r"\}[ \t]{2,}|\}\t")
# Exporters also give metrics of themselves.
_OF_GPUS = re.compile("dcgm_", re.IGNORECASE)


class NotMetrics(ValueError):
    """An answer without metrics. The text is one line."""


class Scraped(NamedTuple):
    """The readings of one answer, and its bad lines."""

    samples: list[Sample]
    refused: list[RefusedRow]
    counts: Counter[str]


class _ScrapedSeries(NamedTuple):
    gpu: Gpu
    folded: Folded


class _Line(NamedTuple):
    """The parts of a line, unchecked."""

    name: str
    labels: dict[str, str]
    rest: str


class Exposition:
    """Reads the answers of one exporter. ``host`` is its address, for rows without a host name."""

    def __init__(self, host: str = "") -> None:
        self._host = host
        self._series: dict[str, _ScrapedSeries | Refusal | None] = {}
        self._gpus: dict[tuple[object, ...], Gpu] = {}

    def read(self, body: str, now_ns: int) -> Scraped:
        """The readings of one answer. Those without a time get ``now_ns``. Raises NotMetrics."""
        if body.lstrip()[:1] in {"<", "{"}:
            raise NotMetrics("the answer is HTML or JSON, not metrics text")
        body = _plainer(body)
        lines = body.split("\n")
        series = self._series
        new = [line for line in lines if line and line[0] != "#" and _head(line) not in series]
        if new:
            self._forget_all_but(lines)
            self._learn(body, new)
        scraped = self._values(lines, now_ns)
        bad = len(scraped.refused) - scraped.counts[NO_IDENTITY]
        if not scraped.samples and not scraped.refused and not any(line.strip(" \r") for line in lines):
            raise NotMetrics("the answer is empty")
        if bad > _BAD_PER_GOOD * (len(scraped.samples) + 1) and scraped.counts[BAD_FIELD] * 2 > bad:
            raise NotMetrics(
                f"the answer is not metrics text: {bad} bad lines, such as {scraped.refused[0].raw[:80]!r}"
            )
        return scraped

    def _values(self, lines: Iterable[str], now_ns: int) -> Scraped:
        samples: list[Sample] = []
        refused: list[RefusedRow] = []
        all_series = self._series
        for number, line in enumerate(lines, 1):
            if not line or line[0] == "#":
                continue
            head, _, rest = line.rpartition("} ")
            series = all_series.get(head or "\n" + line)
            if series is None:
                continue
            if isinstance(series, Refusal):
                refused.append(RefusedRow(number, series.reason, series.detail, line[:MAX_SHOWN]))
                continue
            gpu, (name, convert) = series
            time_ns = now_ns
            try:
                try:
                    value = parse_value(rest)
                except Refused:
                    text, time = _split_rest(rest)
                    time_ns = _time(time) if time else now_ns
                    value = parse_value(text)
            except Refused as error:
                refused.append(RefusedRow(number, error.reason, f"{name}: {error.detail}", line[:MAX_SHOWN]))
                continue
            samples.append(Sample(gpu, name, time_ns, value if convert is None else convert(value)))
        return Scraped(samples, refused, Counter(row.reason for row in refused))

    def _learn(self, body: str, new: list[str]) -> None:
        """Parse lines whose labels are new. The units are decided from the whole answer."""
        units = SourceUnits()
        for name, text in _HELP.findall(body):
            units.note_help(name, text)
        units.note_text(body)
        stored_name = metric_namer(units)
        for line in new:
            try:
                self._series[_head(line)] = self._understand(line, stored_name)
            except Refused as error:
                self._series[_head(line)] = error.refusal
            except ValueError as error:
                self._series[_head(line)] = Refusal(BAD_FIELD, str(error))

    def _forget_all_but(self, lines: Iterable[str]) -> None:
        """Forget lines that are gone, as pods come and go: one process reads hundreds of exporters."""
        heads = {_head(line) for line in lines}
        self._series = {head: series for head, series in self._series.items() if head in heads}
        used = {id(series.gpu) for series in self._series.values() if isinstance(series, _ScrapedSeries)}
        self._gpus = {key: gpu for key, gpu in self._gpus.items() if id(gpu) in used}

    def _understand(self, line: str, stored_name: Callable[[str, NamingLabels], Folded]) -> _ScrapedSeries | None:
        """The GPU and metric of a line; None for a metric that is not of a GPU."""
        parsed = _take_apart(line) if line.strip() else None
        if parsed is None:
            return None
        if _head(line) != line[: len(line) - len(parsed.rest)].rstrip().removesuffix("}"):
            raise Refused(BAD_FIELD, "more than a value and a time after the labels")
        columns, extras = split_labels(parsed.labels)
        if not columns.get("uuid"):
            if not _OF_GPUS.match(parsed.name):
                return None
            raise Refused(NO_IDENTITY, f"{parsed.name}: the labels have no uuid")
        if columns.get("hostname") in {None, "localhost"} and self._host:
            columns["hostname"] = self._host
        key = (*columns.items(), *extras.items())
        gpu = self._gpus.get(key)
        if gpu is None:
            gpu = self._gpus[key] = make_gpu(columns, extras)
        return _ScrapedSeries(gpu, stored_name(parsed.name, naming_labels(parsed.labels)))


def _plainer(body: str) -> str:
    """Remove exemplars, and leave one blank between labels and value."""
    if " # {" in body:
        body = _EXEMPLAR.sub(r"\1", body)
    if "}\t" in body or "}  " in body:
        body = _WIDE.sub("} ", body)
    return body


def _head(line: str) -> str:
    """The part of a line that is the same in each answer. A line without it gets a key of its own."""
    return line.rpartition("} ")[0] or "\n" + line


def _take_apart(line: str) -> _Line | None:
    """The name, the labels and the rest. None for a good line without labels. Raises ValueError."""
    name = _NAME.match(line)
    if name is None:
        raise ValueError("a line begins with the name of a metric")
    rest = line[name.end() :]
    labels = _LABELS.match(rest.lstrip(" \t"))
    if labels is None:
        if rest.lstrip(" \t").startswith("{"):
            raise ValueError("the labels are not closed, or hold a quote that is not escaped")
        words = rest.split()
        if not words or len(words) > 2:
            raise ValueError("expected a value after the name")
        if not words[0].isascii() or "_" in words[0]:
            raise ValueError(f"{words[0][:40]!r} is not a number")
        float(words[0])  # any number of the format, NaN and infinities included
        return None
    return _Line(name[0], parse_labels(labels[0]), rest.lstrip(" \t")[labels.end() :].lstrip(" \t"))


def _split_rest(rest: str) -> tuple[str, str]:
    """The value and the time (empty: none) after the labels."""
    words = rest.split("#", 1)[0].split()
    if len(words) == 2 and not words[1].strip("-0123456789."):
        return words[0], words[1]
    return rest.strip(), ""


def _time(text: str) -> int:
    try:
        time_ns = parse_time(text)
    except ValueError as error:
        raise Refused(BAD_TIMESTAMP, str(error)) from None
    if time_ns < SECOND:
        raise Refused(BAD_TIMESTAMP, f"time {text[:40]!r}")
    return time_ns
