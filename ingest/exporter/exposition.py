"""Reads an exporter's /metrics page: Prometheus' format, OpenMetrics, and what exporters make of them.

All of a line but its value is the same in each scrape, so it is parsed once: faster than a parser that makes an object per line.
A bad line costs that line alone, where a strict parser loses the whole scrape. Whatever an exporter sends, the time is in
proportion to its length.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from ingest.exporter.lines import Line, head_of, help_texts, is_other_text, split_rest, take_apart, tidy
from ingest.parts import Parts
from ingest.samples import NamingLabels, PartNames, RefusedRow, Sample, make_gpu, metric_namer, naming_labels
from ingest.unsupported import Unsupported
from readings.catalogue import is_creation_time, whole_of
from readings.checks import (
    BAD_FIELD,
    BAD_TIMESTAMP,
    DUPLICATE_ROW,
    NO_IDENTITY,
    NOT_A_GPU,
    NOT_SUPPORTED,
    PASSED_OVER,
    Kinds,
    Refusal,
    Refused,
    has_no_zero,
    parse_value,
)
from readings.labels import OWNER_LABELS, UUID_LABELS, Remark, is_loopback, is_of_no_gpu, split_labels
from readings.model import Gpu
from readings.times import SECOND, parse_time
from readings.units import Folded, SourceUnits

MAX_SHOWN = 4096
# Bad lines of one answer that are kept as dead letters; all are counted.
MOST_REFUSED = 1000
# An answer with more bad lines than this for each reading is not metrics at all.
_BAD_PER_GOOD = 2
# Each look may find labels of parts, with which the lines are read again.
_MOST_LOOKS = 5
# Exporters also give metrics of themselves.
_OF_GPUS = re.compile("dcgm_", re.IGNORECASE)


class NotMetrics(ValueError):
    """An answer without metrics. The text is one line."""


class Scraped(NamedTuple):
    """The readings of one answer, its bad lines, counts by reason of any kind, and the number of its GPUs.

    ``remarks`` has the first of each reason, ``unsupported`` a line for each GPU that lacks a sensor, told once.
    """

    samples: list[Sample]
    refused: list[RefusedRow]
    counts: Counter[str]
    gpus: int
    remarks: list[Remark]
    unsupported: list[str]


class _LineGpu(NamedTuple):
    """A GPU as a line describes it. ``identity`` also has who uses it: rows that differ in that are shares of the GPU."""

    gpu: Gpu
    identity: tuple[str, ...]
    remarks: frozenset[str]


class _Twin(NamedTuple):
    """One of several series that have one GPU, holder and name. Those of one ``variant`` differ in their owners alone."""

    group: int
    variant: int


class _ScrapedSeries(NamedTuple):
    gpu: Gpu
    folded: Folded
    remarks: frozenset[str]
    twin: _Twin | None
    identity: tuple[str, ...]


class _TwinSample(NamedTuple):
    place: int
    number: int
    line: str
    twin: _Twin


_Series = _ScrapedSeries | Refusal | None
_UNKNOWN: Final = Refusal("", "")


class Exposition:
    """Reads the answers of one exporter. ``host`` is its address, for rows without a host name. ``parts`` may be shared."""

    def __init__(self, host: str = "", parts: Parts | None = None) -> None:
        self._host = host
        self._parts = Parts() if parts is None else parts
        self._version = self._parts.version
        self._series: dict[str, _Series] = {}
        self._described: dict[tuple[object, ...], _LineGpu] = {}
        self._names = PartNames()
        self._gpus = 0
        self._told: set[str] = set()
        self._new_remarks: list[Remark] = []
        self._unsupported = Unsupported()

    def read(self, body: str, now_ns: int) -> Scraped:
        """The readings of one answer. Those without a time get ``now_ns``. Raises NotMetrics."""
        if is_other_text(body):
            raise NotMetrics("the answer is HTML or JSON, not metrics text")
        lines = body.split("\n")
        scraped = self._values(lines, now_ns) if self._version == self._parts.version else None
        if scraped is None:
            self._learn(body, lines)
            scraped = self._values(lines, now_ns) or Scraped([], [], Counter(), 0, [], [])
        counts = Kinds.of(scraped.counts).refused
        bad = counts.total() - counts[NO_IDENTITY]
        if not scraped.samples and not scraped.counts and not any(line.strip(" \r") for line in lines):
            raise NotMetrics("the answer is empty")
        if bad > _BAD_PER_GOOD * (len(scraped.samples) + 1) and counts[BAD_FIELD] * 2 > bad:
            raise NotMetrics(
                f"the answer is not metrics text: {bad} bad lines, such as {scraped.refused[0].raw[:80]!r}"
            )
        return scraped

    def _values(self, lines: Iterable[str], now_ns: int) -> Scraped | None:
        """The values of lines that are known; None if there is one that is not."""
        samples: list[Sample] = []
        refused: list[RefusedRow] = []
        counts: Counter[str] = Counter()
        repeated: list[tuple[int, str, _ScrapedSeries]] = []
        twins: list[_TwinSample] = []
        known = self._series
        left = known.copy()  # each line takes its series: a second one finds none
        take = left.pop

        def refuse(number: int, reason: str, detail: str, line: str) -> None:
            counts[reason] += 1
            if reason not in PASSED_OVER and len(refused) < MOST_REFUSED:
                refused.append(RefusedRow(number, reason, detail, line[:MAX_SHOWN]))

        for number, line in enumerate(lines, 1):
            if not line or line[0] == "#":
                continue
            head, _, rest = line.rpartition("} ")
            series = take(head, _UNKNOWN)
            if series is _UNKNOWN:
                tidied = tidy(line)
                if tidied[:1] in {"", "#"}:
                    continue
                head = head_of(tidied)
                rest = tidied.rpartition("} ")[2]
                series = take(head, _UNKNOWN)
            if series is _UNKNOWN:
                if head not in known:
                    return None
                series = known[head]
                if isinstance(series, _ScrapedSeries):
                    repeated.append((number, tidied, series))
                    continue
            if series is None:
                continue
            if isinstance(series, Refusal):
                refuse(number, series.reason, series.detail, line)
                continue
            gpu, (name, convert), remarks, twin, _ = series
            time_ns = now_ns
            try:
                if " " in rest:
                    rest, time = split_rest(rest)
                    if time:
                        time_ns = _time(time)
                value = parse_value(rest)
                if convert is not None:
                    value = convert(value)
            except Refused as error:
                refuse(number, error.reason, f"{name}: {error.detail}", line)
                if error.reason == NOT_SUPPORTED:
                    self._unsupported.note(gpu.id, name)
                continue
            if remarks:
                counts.update(remarks)
            if twin:
                twins.append(_TwinSample(len(samples), number, line, twin))
            samples.append(Sample(gpu, name, time_ns, value))
        if repeated:
            for number, line, detail in self._repeats(repeated, samples, now_ns):
                refuse(number, DUPLICATE_ROW, detail, line)
        if twins:
            seconds = _seconds(twins, samples)
            for each in seconds:
                name = samples[each.place].metric_name
                refuse(each.number, DUPLICATE_ROW, f"{name}: no label tells this row from an earlier one", each.line)
            dropped = {each.place for each in seconds}
            samples = [sample for place, sample in enumerate(samples) if place not in dropped]
        new_remarks, self._new_remarks = self._new_remarks, []
        # With lines missing, a GPU may be: else they are those of the lines that were learnt.
        gpus = len({sample.gpu.uuid for sample in samples}) if left else self._gpus
        return Scraped(samples, refused, counts, gpus, new_remarks, self._unsupported.take())

    def _repeats(
        self, repeated: Iterable[tuple[int, str, _ScrapedSeries]], samples: list[Sample], now_ns: int
    ) -> Iterator[tuple[int, str, str]]:
        """Add the readings of lines whose labels came before: those of another time. Gives those that contradict the first."""
        known = {(id(sample.gpu), sample.metric_name, sample.time_ns): sample.value for sample in samples}
        for number, line, (gpu, (name, convert), _, _, _) in repeated:
            text, time = split_rest(line.rpartition("} ")[2])
            try:
                value = parse_value(text)
                if convert is not None:
                    value = convert(value)
                time_ns = _time(time) if time else now_ns
            except Refused as error:
                yield number, line, f"{name}: {error.detail}"
                continue
            key = (id(gpu), name, time_ns)
            if key not in known:
                known[key] = value
                samples.append(Sample(gpu, name, time_ns, value))
            elif known[key] != value:
                yield number, line, f"{name} of {gpu.id}: {value!r} after {known[key]!r}, with the same labels"

    def _learn(self, body: str, lines: list[str]) -> None:
        """Parse lines whose labels are new, and look for labels of parts among all. The units are decided from the whole answer."""
        tidied = [tidy(line) for line in lines if line and line[0] != "#"]
        heads = {head_of(line): line for line in tidied if line[:1] not in {"", "#"}}
        # Lines that are gone are forgotten, as pods come and go: one process reads hundreds of exporters.
        known = {head: series for head, series in self._series.items() if head in heads}
        units = SourceUnits()
        for name, text in help_texts(body):
            units.note_help(name, text)
        units.note_text(body)
        for _ in range(_MOST_LOOKS):
            if self._version != self._parts.version:
                self._version = self._parts.version
                known = {}
                self._described = {}
            new = heads.keys() - known.keys()
            stored_name = metric_namer(units, self._parts.of, self._names)
            for head, line in heads.items():  # in their order: of two rows that nothing tells apart the first is taken
                if head in new:
                    known[head] = self._learn_line(line, stored_name)
            if not self._look_for_parts(known, heads, new):
                break
        self._series = known
        series_of_gpus = [series for series in known.values() if isinstance(series, _ScrapedSeries)]
        self._gpus = len({series.gpu.uuid for series in series_of_gpus})
        self._mark_twins(heads)
        used = {id(series.gpu) for series in series_of_gpus}
        self._described = {key: each for key, each in self._described.items() if id(each.gpu) in used}

    def _learn_line(self, line: str, stored_name: Callable[[str, NamingLabels], Folded]) -> _Series:
        try:
            return self._understand(line, stored_name)
        except Refused as error:
            return error.refusal
        except ValueError as error:
            return Refusal(BAD_FIELD, str(error))

    def _understand(self, line: str, stored_name: Callable[[str, NamingLabels], Folded]) -> _Series:
        """The GPU and metric of a line; None for a metric that is not of a GPU."""
        parsed = take_apart(line) if line.strip() else None
        if parsed is None or is_creation_time(parsed.name):
            return None
        if head_of(line) != line[: len(line) - len(parsed.rest)].rstrip().removesuffix("}"):
            raise Refused(BAD_FIELD, "more than a value and a time after the labels")
        described = self._describe(parsed)
        if described is None:
            return None
        name = stored_name(parsed.name, naming_labels(parsed.labels, self._parts.labels))
        if has_no_zero(name.name):
            name = Folded(name.name, _without_zero(name.convert))
        return _ScrapedSeries(described.gpu, name, described.remarks, None, described.identity)

    def _describe(self, line: Line) -> _LineGpu | None:
        labels = line.labels
        columns, extras = split_labels(labels, self._parts.of_readings)
        if "uuid" not in columns:
            if not any(name in labels for name in UUID_LABELS):
                if not _OF_GPUS.match(line.name):
                    return None
                if is_of_no_gpu(labels, line.name):
                    raise Refused(NOT_A_GPU, line.name)
            raise Refused(NO_IDENTITY, f"{line.name}: the labels have no uuid, or a blank one")
        if is_loopback(columns.get("hostname", "localhost")) and self._host:
            columns["hostname"] = self._host
        owner = tuple([f"{name}={value}" for name, value in labels.items() if name in OWNER_LABELS])
        key = (owner, *columns.items(), *extras.items(), *{remark.reason for remark in line.remarks})
        described = self._described.get(key)
        if described is None:
            gpu, remarks = make_gpu(columns, extras, line.remarks)
            for remark in remarks:
                if remark.reason not in self._told:
                    self._told.add(remark.reason)
                    self._new_remarks.append(remark)
            reasons = frozenset(remark.reason for remark in remarks)
            described = self._described[key] = _LineGpu(gpu, (gpu.id, *sorted(owner)), reasons)
        return described

    def _look_for_parts(self, known: dict[str, _Series], heads: dict[str, str], new: set[str]) -> bool:
        """Whether new labels were found that tell rows of one GPU and metric apart."""
        rows: defaultdict[tuple[object, ...], list[str]] = defaultdict(list)
        for head, series in known.items():
            if isinstance(series, _ScrapedSeries):
                rows[series.identity, whole_of(series.folded.name)].append(head)
        groups: defaultdict[str, list[list[Iterable[tuple[str, str]]]]] = defaultdict(list)
        for (_, metric), group in rows.items():
            if len(group) > 1 and not new.isdisjoint(group):
                parsed = [take_apart(heads[head]) for head in group]
                groups[str(metric)].append([line.labels.items() for line in parsed if line is not None])
        found = [self._parts.find(metric, of_metric) for metric, of_metric in groups.items()]
        return any(found)

    def _mark_twins(self, heads: dict[str, str]) -> None:
        """Mark the series that nothing tells apart in the store: of their rows at one time one is taken."""
        groups: defaultdict[tuple[object, ...], list[str]] = defaultdict(list)
        for head, series in self._series.items():
            if isinstance(series, _ScrapedSeries):
                gpu = series.gpu
                groups[series.identity[0], gpu.namespace, gpu.pod, gpu.container, series.folded.name].append(head)
        for number, group in enumerate(groups.values()):
            variants: dict[frozenset[tuple[str, str]], int] = {}
            for head in group:
                twin = None
                if len(group) > 1:
                    line = take_apart(heads[head])
                    labels = frozenset() if line is None else _without_owners(line.labels)
                    twin = _Twin(number, variants.setdefault(labels, len(variants)))
                series = self._series[head]
                if isinstance(series, _ScrapedSeries) and series.twin != twin:
                    self._series[head] = series._replace(twin=twin)


def _without_owners(labels: dict[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset([item for item in labels.items() if item[0] not in OWNER_LABELS])


def _seconds(twins: Iterable[_TwinSample], samples: list[Sample]) -> list[_TwinSample]:
    """Those that contradict an earlier one of their time: in a label, or, among owners of one GPU, in the value."""
    firsts: dict[tuple[int, int], tuple[int, float]] = {}
    found = []
    for each in twins:
        sample = samples[each.place]
        told = (each.twin.variant, sample.value)
        if firsts.setdefault((each.twin.group, sample.time_ns), told) != told:
            found.append(each)
    return found


def _without_zero(convert: Callable[[float], float] | None) -> Callable[[float], float]:
    """The conversion, for a metric that cannot be 0: exporters write that for a sensor that is not there."""

    def converted(value: float) -> float:
        if value == 0:
            raise Refused(NOT_SUPPORTED, "value '0'")
        return value if convert is None else convert(value)

    return converted


def _time(text: str) -> int:
    try:
        time_ns = parse_time(text)
    except ValueError as error:
        raise Refused(BAD_TIMESTAMP, str(error)) from None
    if time_ns < SECOND:
        raise Refused(BAD_TIMESTAMP, f"time {text[:40]!r}")
    return time_ns
