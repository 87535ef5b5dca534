"""The checks that keep values that are no measurements out of the store. Unknown is never stored as 0, but refused."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from math import isnan
from sys import float_info
from typing import TYPE_CHECKING, NamedTuple

from readings.catalogue import CATALOGUE, canonical_name, whole_of
from readings.labels import BAD_LABEL, REPEATED_LABEL, is_blank_text
from readings.model import MAX_LABELS, Gpu, Point, PointBlock
from readings.text import is_safe_name
from readings.times import INT64_MAX, SECOND, format_time

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLANK = "blank"
NOT_AVAILABLE = "not_available"
NON_FINITE = "non_finite"
BAD_NUMBER = "bad_number"
OUT_OF_RANGE = "out_of_range"
BAD_TIMESTAMP = "bad_timestamp"
FUTURE = "future"
TOO_OLD = "too_old"
NO_IDENTITY = "no_identity"
NO_METRIC = "no_metric"
SHORT_ROW = "short_row"
BAD_FIELD = "bad_field"
DUPLICATE_ROW = "duplicate_row"
TOO_MANY_PARTS = "too_many_parts"
TOO_MANY_GPUS = "too_many_gpus"
TOO_MANY_METRICS = "too_many_metrics"
BAD_MESSAGE = "bad_message"
UNFINISHED_MESSAGE = "unfinished_message"
LOST_MESSAGE = "lost_message"
STORE_REFUSED = "store_refused"
SPOOL_FULL = "spool_full"
OTHER = "other"

LABEL_CONFLICT = "label_conflict"
TOO_MANY_LABELS = "too_many_labels"
NOT_UTF8 = "not_utf8"
COUNTER_RESET = "counter_reset"

NOT_SUPPORTED = "not_supported"
NOT_A_GPU = "not_a_gpu"

# Each reason has one of three kinds, with its meaning for a user. A reading is refused only for what it needs: time, metric,
# value, identity.
REASONS = {
    BLANK: "DCGM had no value and wrote one of its blank numbers",
    NOT_AVAILABLE: "the source says that there is no value (N/A, empty)",
    NON_FINITE: "not a number, or infinite",
    BAD_NUMBER: "the value is not a decimal number",
    OUT_OF_RANGE: "a value that the metric cannot have",
    BAD_TIMESTAMP: "the time is missing, unreadable or before 1970",
    FUTURE: "the time is more than 5 minutes ahead",
    TOO_OLD: "older than the retention period",
    NO_IDENTITY: "no GPU uuid, or one of zeros",
    NO_METRIC: "no metric name",
    SHORT_ROW: "fewer or more values than columns",
    DUPLICATE_ROW: "a second row of the same GPU, metric and time, and no label tells them apart",
    TOO_MANY_PARTS: "more parts (links, peers …) of one metric than are kept apart",
    BAD_FIELD: "a line, a name or an identity that cannot be read or is too long",
    TOO_MANY_GPUS: "a new GPU or host, beyond MAX_GPUS in all or MAX_NEW_GPUS in an hour",
    TOO_MANY_METRICS: "a new metric name, beyond MAX_METRICS in all or MAX_NEW_METRICS in an hour",
    BAD_MESSAGE: "a message that is not a batch",
    UNFINISHED_MESSAGE: "a message at which collectors ended three times (kept whole, not read again)",
    LOST_MESSAGE: "a message that the broker no longer had",
    STORE_REFUSED: "the store refused the reading for good",
    SPOOL_FULL: "a streamer gave it up, since the broker was away and the spool was full",
    OTHER: "a streamer gave a reason that is not known here",
}
# What was taken, without something that it does not need.
REMARKS = {
    BAD_LABEL: "a label or a column that cannot be read or is too long was left out",
    REPEATED_LABEL: "a label is there twice with different values (the first is taken)",
    TOO_MANY_LABELS: f"more than {MAX_LABELS} labels (the first are taken)",
    NOT_UTF8: "bytes that are not UTF-8 were replaced",
    LABEL_CONFLICT: "the labels contradict the columns (the columns are taken)",
    COUNTER_RESET: "a counter is lower than before, as after a reload of the driver (the value is taken)",
}
# What is by design no reading, and no fault.
PASSED_OVER = {
    NOT_SUPPORTED: "the GPU has no such sensor: the source says so, or writes 0 where the metric cannot be 0; or it is no number",
    NOT_A_GPU: "a row of a CPU, a switch, a link or another device that names no GPU",
}


_KNOWN = REASONS.keys() | REMARKS.keys() | PASSED_OVER.keys()


def known_reasons(counts: Mapping[str, int]) -> Counter[str]:
    """The counts, with those of all reasons that are not known here under OTHER: clients can invent any number of them."""
    if counts.keys() <= _KNOWN:
        return Counter(counts)
    known: Counter[str] = Counter()
    for reason, count in counts.items():
        known[reason if reason in _KNOWN else OTHER] += count
    return known


class Kinds(NamedTuple):
    """Counts by reason, one for each kind of reason. A reason that is not known here is one of refusals."""

    refused: Counter[str]
    remarks: Counter[str]
    passed_over: Counter[str]

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> Kinds:
        """Splits counts by the kind of their reasons."""
        kinds = cls(Counter(), Counter(), Counter())
        for reason, count in counts.items():
            kind = kinds.remarks if reason in REMARKS else kinds.passed_over if reason in PASSED_OVER else kinds.refused
            kind[reason] = count
        return kinds

    def spelled(self) -> list[str]:
        """A text for each kind of which there are any: ``refused: blank 2``, ``remarked on: …``, ``passed over: …``."""
        titled = zip(("refused", "remarked on", "passed over"), self, strict=True)
        return [
            f"{title}: {', '.join(f'{reason} {count}' for reason, count in sorted(counts.items()))}"
            for title, counts in titled
            if counts
        ]


class Refusal(NamedTuple):
    """One reading that is refused, or passed over. ``reason`` is a key of REASONS or PASSED_OVER, ``detail`` one line that says
    what is wrong.

    ``block`` holds the reading itself, if it could be read at all; else ``original`` gives it as it came, as a batch of its own.
    """

    reason: str
    detail: str
    block: PointBlock | None = None
    original: Callable[[], bytes] | None = None


class Refused(ValueError):
    """Raised where a single reading is checked. ``original``: see Refusal."""

    def __init__(self, reason: str, detail: str, original: Callable[[], bytes] | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.original = original
        self.reason = reason
        self.detail = detail

    @property
    def refusal(self) -> Refusal:
        """The refusal that this error stands for."""
        return Refusal(self.reason, self.detail)


class Refusals(list[Refusal]):
    """The first MOST refused readings of a message. ``counts`` has all of them, by reason.

    A small message may hold millions of bad readings, and an object for each would take a thousand times its size.
    """

    MOST = 1000

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = defaultdict(int)  # a Counter takes longer to make than a good message to check

    @property
    def full(self) -> bool:
        """Whether further ones are only counted."""
        return len(self) >= self.MOST

    def refuse(self, refusal: Refusal, readings: int = 1) -> None:
        """Count a refusal, for so many readings; keep it while there is room."""
        self.counts[refusal.reason] += readings
        self.extend([refusal] * min(readings, self.MOST - len(self)))

    def merge(self, others: Refusals) -> None:
        """Count these too, and keep them while there is room."""
        for reason, count in others.counts.items():
            self.counts[reason] += count
        self.extend(others[: self.MOST - len(self)])


# Of good blocks; nobody adds to it.
_NONE = Refusals()

MAX_AHEAD_NS = 300 * SECOND
MAX_METRIC_NAME = 255

# DCGM writes "no value" as numbers: blank, not found, not supported and not permitted, for each of its types. They are
# refused for every metric: a counter that truly is at one of these eight values is far rarer than a blank.
_INT32_BLANK = 2147483632.0
_FP64_BLANK = 140737488355328.0
_BLANKS = frozenset(first + code for first in (_INT32_BLANK, _FP64_BLANK) for code in range(4))
_INT64_BLANK = 9.2e18  # as doubles the four 64-bit blanks are all 2**63, and some exporters round them further

_NOT_AVAILABLE = frozenset({"", "-", "n/a", "na", "none", "null", "not available", "unknown"})
# Exporters write this at each scrape for a metric that is no number at all.
_NO_NUMBER = ("ERROR - FAILED TO CONVERT",)
_NOT_SUPPORTED = frozenset({"not supported", "[not supported]", "[n/a]", "<<<not_supported>>>"})

_LOWEST = -float_info.max
_UNBOUNDED = (float("-inf"), float("inf"))
_RANGES = {metric.name: (float(metric.range[0]), float(metric.range[1])) for metric in CATALOGUE.values()}


def _range_of(name: str) -> tuple[float, float]:
    return _RANGES.get(name) or _RANGES.get(whole_of(name), _UNBOUNDED)


def parse_value(text: str) -> float:
    """Parses a plain decimal number, with or without blanks around it. Raises Refused.

    Stricter than float(): it takes no underscores, digits of other scripts, infinities or DCGM's blank values.
    """
    if text.isascii() and "_" not in text:
        try:
            value = float(text)
        except ValueError:
            raise _not_a_number(text) from None
        if -_INT32_BLANK < value < _INT32_BLANK:  # nearly all values; neither a blank nor infinite nor NaN
            return value
        problem = _number_problem(value)
        if problem is None:
            return value
        raise Refused(problem, f"value {text.strip()[:80]!r}")
    raise _not_a_number(text)


def _not_a_number(text: str) -> Refused:
    word = text.strip()
    shown = f"value {word[:80]!r}"
    if word.lower() in _NOT_SUPPORTED or word.startswith(_NO_NUMBER):
        return Refused(NOT_SUPPORTED, shown)
    if is_blank_text(word):
        return Refused(BLANK, shown)
    if (word.startswith("[") and word.endswith("]")) or word.startswith("ERROR") or word.lower() in _NOT_AVAILABLE:
        return Refused(NOT_AVAILABLE, shown)
    return Refused(BAD_NUMBER, shown)


def _number_problem(value: float) -> str | None:
    if value - value != 0:  # NaN and infinities only
        return NON_FINITE
    return BLANK if value >= _INT64_BLANK or value in _BLANKS else None


def has_no_zero(metric_name: str) -> bool:
    """Whether a metric (by its canonical name) cannot be 0, so that 0 says that its sensor is not there."""
    return _range_of(metric_name)[0] > 0


def problem_of(metric_name: str, value: float) -> str | None:
    """Why the metric (by its canonical name) cannot have this value, or None if it can."""
    problem = _number_problem(value)
    if problem is not None:
        return problem
    low, high = _range_of(metric_name)
    if low <= value <= high:
        return None
    return (
        NOT_SUPPORTED if value == 0 < low else OUT_OF_RANGE
    )  # as the memory's temperature of a board without that sensor


def check_metric_name(name: str) -> str:
    """Returns the canonical name. Raises Refused if it is empty, over 255 characters or has a control character."""
    canonical = canonical_name(name)
    if not canonical:
        raise Refused(NO_METRIC, "metric_name is empty")
    if len(canonical) > MAX_METRIC_NAME or not is_safe_name(canonical) or "\ufffd" in canonical:
        raise Refused(
            BAD_FIELD,
            f"metric_name {canonical[:40]!r}… has a control character, broken text or over {MAX_METRIC_NAME} characters",
        )
    return canonical


def check_block(block: PointBlock, *, now_ns: int, oldest_ns: int | None) -> tuple[PointBlock, Refusals]:
    """Returns the block without its impossible readings, and their refusals. Metric names must be canonical.

    Refuses blanks, NaN, infinities, values outside the metric's range, and times before ``oldest_ns`` (None: no limit),
    before 1970 or over 5 minutes after ``now_ns``. The block is not changed; a good one is returned unchanged.
    """
    if not block.points:
        return block, _NONE
    newest, oldest = now_ns + MAX_AHEAD_NS, 0 if oldest_ns is None else max(oldest_ns, 0)
    return (block, _NONE) if _is_good(block, oldest, newest) else _sift(block, oldest, newest)


def _is_good(block: PointBlock, oldest: int, newest: int) -> bool:
    """Whether all readings can be true. If that is not plain from each column's lowest and highest value: no.

    It takes a tenth of the time that a test for each reading would.
    """
    try:
        _, times, values = block.arrays
    except ValueError:
        return False
    if not oldest <= int(times.min()) <= int(times.max()) <= newest:
        return False
    lowest, highest = values.min(axis=0).tolist(), values.max(axis=0).tolist()
    if any(map(isnan, lowest)):
        lowest, highest, absent = _without_gaps(values)
        if absent != values.size - block.count():  # a value that is NaN
            return False
    for place, (name, least, most) in enumerate(zip(block.metric_names, lowest, highest, strict=True)):
        low, high = _range_of(name)
        if not (low <= least and least >= _LOWEST and most <= high) and not isnan(least):
            return False
        if most >= _INT32_BLANK and (most >= _INT64_BLANK or not _BLANKS.isdisjoint(values[:, place].tolist())):
            return False
    return True


def _without_gaps(values: NDArray[np.float64]) -> tuple[list[float], list[float], int]:
    """The lowest and highest value of each column (NaN: it has none), and how many there are not."""
    import numpy as np  # a live source does without

    lowest, highest = np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)
    return lowest.tolist(), highest.tolist(), int(np.count_nonzero(np.isnan(values)))


def _sift(block: PointBlock, oldest: int, newest: int) -> tuple[PointBlock, Refusals]:
    names = block.metric_names
    refusals = Refusals()
    good_points: list[Point] = []
    for point in block.points:
        index, time_ns, values = point
        problem = _time_problem(time_ns, oldest, newest)
        if problem and refusals.full:
            refusals.counts[problem] += len(values) - values.count(None)
            continue
        good = None if problem else values
        for column, value in enumerate(values):
            if value is None:
                continue
            reason = problem or problem_of(names[column], value)
            if reason is not None:
                if refusals.full:
                    refusals.counts[reason] += 1
                else:
                    refusals.refuse(_refusal(reason, block.gpus[index], names[column], time_ns, value))
                if good is values:
                    good = values.copy()
                if good is not None:
                    good[column] = None
        if good is values:
            good_points.append(point)
        elif good is not None and good.count(None) < len(good):
            good_points.append((index, time_ns, good))
    if not refusals and len(good_points) == len(block.points):
        return block, refusals
    return PointBlock(block.gpus, names, good_points), refusals


def _refusal(reason: str, gpu: Gpu, name: str, time_ns: int, value: float) -> Refusal:
    detail = f"{gpu.id} {name} = {value!r} at {_shown_time(time_ns)}"
    return Refusal(reason, detail, PointBlock([gpu], [name], [(0, time_ns, [value])]))


def _time_problem(time_ns: int, oldest: int, newest: int) -> str | None:
    if time_ns > newest:
        return FUTURE
    if time_ns < oldest:
        return TOO_OLD if time_ns >= 0 else BAD_TIMESTAMP
    return None


def _shown_time(time_ns: int) -> str:
    return format_time(time_ns) if 0 <= time_ns <= INT64_MAX else str(time_ns)
