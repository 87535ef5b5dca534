from __future__ import annotations

from readings import checks
from readings.checks import REASONS, Refusal, Refused


def test_every_reason_is_explained() -> None:
    constants = {value for name, value in vars(checks).items() if name.isupper() and isinstance(value, str)}
    assert constants == set(REASONS)
    assert all(REASONS.values())


def test_a_refused_reading_says_why_in_one_line() -> None:
    refused = Refused(checks.OUT_OF_RANGE, "GPU-1 utilisation = 2619")
    assert str(refused) == "out_of_range: GPU-1 utilisation = 2619"
    assert refused.refusal == Refusal("out_of_range", "GPU-1 utilisation = 2619")
