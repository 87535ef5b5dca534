"""inventory.admin: numbers and tables for people."""

from __future__ import annotations

import pytest

from inventory.admin import UNKNOWN, shown, shown_exactly, table


@pytest.mark.parametrize(
    ("value", "unit", "digits", "expected"),
    [
        (None, "W", 1, UNKNOWN),
        (0.0, "W", 1, "0.0 W"),
        (1234.56, "W", 1, "1,234.6 W"),
        (7.0, "", 0, "7"),
    ],
)
def test_a_value_has_its_unit_and_unknown_is_a_dash(value: float | None, unit: str, digits: int, expected: str) -> None:
    assert shown(value, unit, digits) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0, "0"), (66.781, "66.781"), (12345678.0, "12,345,678"), (0.1, "0.1"), (1e-9, "1e-09")]
)
def test_an_exact_value_keeps_all_its_digits(value: float, expected: str) -> None:
    assert shown_exactly(value) == expected


def test_tables_escape_what_they_show() -> None:
    assert table(("A",), []) == UNKNOWN
    html = table(("A&B",), [("<b>",)])
    assert "A&amp;B" in html
    assert "<td>&lt;b&gt;</td>" in html
