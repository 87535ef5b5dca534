"""Charts of measurements: every point is where its axis says, and nothing in them breaks the page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from bench.plot import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Line, chart, label_of

SVG = "{http://www.w3.org/2000/svg}"
X, Y = Axis("GPUs", log=True), Axis("CPU, s for a million readings")


def circles(text: str) -> list[tuple[float, float]]:
    return [
        (float(each.get("cx", "")), float(each.get("cy", "")))
        for each in ElementTree.fromstring(text).iter(f"{SVG}circle")
    ]


def test_points_are_where_the_axes_say() -> None:
    first, middle, last = circles(chart("cost", X, Y, [Line("collector", [(100, 0), (1000, 5), (10_000, 10)])]))
    assert first == pytest.approx((LEFT, HEIGHT - BOTTOM))
    assert last == pytest.approx((WIDTH - RIGHT, TOP))
    assert middle == pytest.approx(((first[0] + last[0]) / 2, (first[1] + last[1]) / 2))


def test_titles_labels_and_last_values_are_written() -> None:
    text = chart("a < b", X, Y, [Line("R&D", [(10, 1.25), (20, 2.5)]), Line("other", [(10, 1), (20, 2.51)])])
    written = [each.text for each in ElementTree.fromstring(text).iter(f"{SVG}text")]
    for expected in ("a < b", "R&D", "other", "GPUs", "CPU, s for a million readings", "2.5", "2.51", "10", "20"):
        assert expected in written
    heights = [float(height) for height in re.findall(r'class="mark s\d" x="[\d.]+" y="([\d.]+)"', text)]
    assert abs(heights[0] - heights[1]) >= 13


@pytest.mark.parametrize(("low", "high"), [(1, 1), (250, 25_000), (0.003, 0.9), (10, 100), (99, 101)])
def test_a_logarithmic_axis_holds_all_values(low: float, high: float) -> None:
    ticks = X.ticks([low, high])
    assert ticks == sorted(set(ticks))
    assert len(ticks) >= 2
    assert ticks[0] <= low * 1.001
    assert ticks[-1] >= high * 0.999
    assert X.place(low, ticks) >= -1e-6


@pytest.mark.parametrize("high", [0, 0.07, 1, 9.99, 12, 100, 4321])
def test_a_linear_axis_begins_at_nothing_and_holds_all_values(high: float) -> None:
    ticks = Y.ticks([high])
    assert ticks[0] == 0
    assert ticks[-1] >= high
    assert len(ticks) <= 7


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="logarithmic"):
        chart("none", X, Y, [Line("zero", [(0, 1), (1, 1)])])
    with pytest.raises(ValueError, match="0 curves"):
        chart("none", X, Y, [Line("empty", [])])


def test_numbers_are_short() -> None:
    assert [label_of(each) for each in (0, 5, 0.25, 1.2345, 12.34, 123.4, 12_500)] == [
        "0",
        "5",
        "0.25",
        "1.23",
        "12.3",
        "123",
        "12,500",
    ]
