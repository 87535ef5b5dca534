"""Why a reading is turned away: the words that counters, dead letters and the status page use."""

from __future__ import annotations

from typing import NamedTuple

from readings.model import PointBlock

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
LABEL_CONFLICT = "label_conflict"
SHORT_ROW = "short_row"
BAD_FIELD = "bad_field"
COUNTER_RESET = "counter_reset"

# Reason -> what it means, in the words of a user.
REASONS = {
    BLANK: "DCGM had no value and wrote one of its blank numbers",
    NOT_AVAILABLE: "the source says that there is no value (N/A, empty, not supported)",
    NON_FINITE: "not a number, or infinite",
    BAD_NUMBER: "the value is no decimal number",
    OUT_OF_RANGE: "a value that the metric cannot have",
    BAD_TIMESTAMP: "the time is missing, unreadable or before 1970",
    FUTURE: "the time is more than 5 minutes ahead",
    TOO_OLD: "older than the retention period",
    NO_IDENTITY: "no GPU uuid",
    NO_METRIC: "no metric name",
    LABEL_CONFLICT: "the labels tell something else than the columns (the columns are taken)",
    SHORT_ROW: "fewer or more values than columns",
    COUNTER_RESET: "a counter stood lower than before, as after a reload of the driver (the value is taken)",
    BAD_FIELD: "another field is missing, of the wrong kind or too long",
}


class Refusal(NamedTuple):
    """One reading that was turned away. ``reason`` is a key of REASONS; ``detail`` is one line that shows what was wrong; ``block``
    is the reading itself, where it was one."""

    reason: str
    detail: str
    block: PointBlock | None = None


class Refused(ValueError):
    """Raised where one reading is looked at by itself. Carries what a Refusal holds."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    @property
    def refusal(self) -> Refusal:
        """The same as a Refusal."""
        return Refusal(self.reason, self.detail)
