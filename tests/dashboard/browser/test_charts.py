"""static/dashboard/js: what charts make of their numbers, in a real browser."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

REASONS = [
    {"bit": 1, "name": "idle", "meaning": "normal", "text": ""},
    {"bit": 4, "name": "power cap", "meaning": "limit", "text": ""},
    {"bit": 64, "name": "thermal, hardware", "meaning": "fault", "text": ""},
]


def call(page: Page, module: str, function: str, *arguments: object) -> Any:
    """Calls a function of a module. ``undefined`` in lists arrives as the text "undefined"."""
    page.goto("/hosts")
    script = """async ([module, name, args]) => {
        const found = (await import(`/static/dashboard/js/${module}.js`))[name](...args);
        return JSON.parse(JSON.stringify(found, (_, value) => (value === undefined ? "undefined" : value)));
    }"""
    return page.evaluate(script, [module, function, list(arguments)])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, None, 4, 5, 6, 7], [1, 2, None, 4, 5, 6, 7]),  # one window without a reading is a gap
        ([1, None, 2, None, 3, None, 4], [1, "undefined", 2, "undefined", 3, "undefined", 4]),  # readings are rarer
        (
            [1, None, 2, None, 3, None, None, None, None, None, 4, None, 5],
            [1, "undefined", 2, "undefined", 3, None, None, None, None, None, 4, "undefined", 5],
        ),
        ([None, None], [None, None]),
    ],
)
def test_a_gap_is_where_readings_are_missing_not_where_windows_are_narrow(
    page: Page, values: list[int | None], expected: list[object]
) -> None:
    assert call(page, "gaps", "bridged", values) == expected


def test_reasons_become_spans_and_idling_none(page: Page) -> None:
    masks = [1, 4, 4 | 64, 64, None, 4]
    spans = call(page, "marks", "throttling", [0, 10, 20, 30, 40, 50], masks, 10, REASONS)
    assert [(each["name"], each["kind"], each["time"], each["end"]) for each in spans] == [
        ("power cap", "info", 10, 30),
        ("power cap", "info", 50, 60),
        ("thermal, hardware", "warning", 20, 40),
    ]


def test_an_xid_is_marked_when_it_comes_not_while_it_stays(page: Page) -> None:
    found = call(page, "marks", "xids", [0, 10, 20, 30, 40, 50], [31, 31, None, 79, 79, 0])
    assert [(each["time"], each["text"]) for each in found] == [(30, "XID 79")]


@pytest.mark.parametrize(
    ("width", "hours", "every"), [(620, 1, "30s"), (300, 1, "60s"), (620, 24, "600s"), (620, 168, "3600s")]
)
def test_the_step_follows_the_width(page: Page, width: int, hours: int, every: str) -> None:
    shown = {"start": 0, "end": hours * 3_600_000}
    assert call(page, "charts", "windows", width, shown)["every"] == every
