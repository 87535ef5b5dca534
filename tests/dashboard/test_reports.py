"""dashboard.templatetags.reports: filters for tables."""

from __future__ import annotations

import math

import pytest
from django.utils.html import strip_tags

from dashboard.templatetags.dashboard import NOT_KNOWN
from dashboard.templatetags.reports import bytes as as_bytes
from dashboard.templatetags.reports import duration, pair, raw, short, signed


@pytest.mark.parametrize(
    ("amount", "text"), [(4.53, "+4.5 °C"), (-2.0, "−2 °C"), (0.0, "0 °C"), (-0.04, "0.0 °C"), (12.0, "+12 °C")]
)
def test_a_difference_has_its_sign(amount: float, text: str) -> None:
    assert strip_tags(signed(amount, "°C")) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 m"), (90, "1 m"), (3599.9, "1 h"), (12_000, "3 h 20 m"), (187_200, "2 d 4 h")],
)
def test_a_duration_has_two_parts_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (9_999, "9,999"), (12_345, "12.3 k"), (1_234_567, "1.23 M"), (5_000_000_000, "5 G")]
)
def test_a_large_count_is_short(count: int, text: str) -> None:
    assert strip_tags(short(count)) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**40, "3.0 TiB")])
def test_a_size(count: int, text: str) -> None:
    assert strip_tags(as_bytes(count)) == text


def test_what_is_unknown_is_said_and_sorts_as_nothing() -> None:
    assert signed(math.nan, "W") == signed(None, "W") == duration(None) == short(None) == as_bytes(None) == NOT_KNOWN
    assert raw(None) == raw(math.nan) == ""
    assert raw(0.25) == "0.25"


def test_lists_of_unequal_length_are_a_mistake() -> None:
    assert pair([1, 2], ["a", "b"]) == [(1, "a"), (2, "b")]
    with pytest.raises(ValueError, match="shorter"):
        pair([1, 2], ["a"])
