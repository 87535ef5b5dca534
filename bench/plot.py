"""Small line charts as SVG, for the documentation: readable on light and dark pages, no script, no font of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 90, 78, 52
# For light and for dark pages; told apart by people who see no red or green, and by their dashes.
_COLOURS = (("#0b62a4", "#6cb6ff"), ("#b35900", "#f0a04b"), ("#1a7f4b", "#56d39a"), ("#8e3a8a", "#dd9be0"), ("#5c5c5c", "#b8b8b8"),
            ("#a11d33", "#ff8095"))  # fmt: skip
_DASHES = ("none", "7 3", "2 3", "9 3 2 3", "4 2", "12 4")
_STYLE = "".join(
    [
        "text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-size:14px;font-weight:600}.grid{stroke:#d0d7de}.axis{stroke:#57606a}",
        *(f".s{n}{{stroke:{light}}}circle.s{n},text.s{n}{{fill:{light}}}" for n, (light, _) in enumerate(_COLOURS)),
        *(f".l{n}{{fill:none;stroke-width:2;stroke-dasharray:{dash}}}" for n, dash in enumerate(_DASHES)),
        "text.mark{stroke:none}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.grid{stroke:#3d444d}.axis{stroke:#9198a1}",
        *(f".s{n}{{stroke:{dark}}}circle.s{n},text.s{n}{{fill:{dark}}}" for n, (_, dark) in enumerate(_COLOURS)),
        "}",
    ]
)


class Line(NamedTuple):
    """One curve: (x, y) in the order of x. At most six go into a chart."""

    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale with its title, which names the unit. A linear one begins at 0; a logarithmic one takes no value of 0 or less."""

    title: str
    log: bool = False

    def ticks(self, values: Sequence[float]) -> list[float]:
        """Round numbers from at or below the smallest value (linear: 0) to at or above the largest."""
        low, high = min(values), max(values)
        if not self.log:
            step = _round_up(max(high, 1e-9) / 5)
            return [step * number for number in range(math.ceil(round(max(high, 1e-9) / step, 9)) + 1)]
        if low <= 0:
            raise ValueError(f"{self.title}: {low} cannot be shown on a logarithmic axis")
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        marks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        first = max((mark for mark in marks if mark <= low * 1.0001), default=marks[0])
        last = min((mark for mark in marks if mark >= high * 0.9999 and mark > first), default=marks[-1])
        return [mark for mark in marks if first <= mark <= last]

    def place(self, value: float, ticks: Sequence[float]) -> float:
        """Where the value is between the first tick (0) and the last (1)."""
        first, last, value = (math.log(each) if self.log else each for each in (ticks[0], ticks[-1], value))
        return (value - first) / (last - first)


def _round_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(digit * power for digit in (1, 2, 2.5, 5, 10) if digit * power >= value * 0.9999)


def label_of(value: float) -> str:
    """A number as short as its size allows: 12,500, 0.25."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"


def chart(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """The SVG: a legend above, and the last value beside each curve's end. Raises ValueError without a point."""
    lines = [line for line in lines if line.points]
    if not 1 <= len(lines) <= len(_COLOURS):
        raise ValueError(f"{title}: {len(lines)} curves with points; a chart takes 1 to {len(_COLOURS)}")
    columns, rows = (
        axis.ticks([point[at] for line in lines for point in line.points]) for at, axis in ((0, x), (1, y))
    )
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return LEFT + x.place(point[0], columns) * (right - LEFT), bottom - y.place(point[1], rows) * (bottom - TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text class="title" x="{LEFT}" y="20">{escape(title)}</text>',
    ]
    for tick in rows:
        height = at((columns[0], tick))[1]
        parts.append(f'<path class="{"axis" if tick == rows[0] else "grid"}" d="M{LEFT} {height:.1f}H{right}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{height + 4:.1f}" text-anchor="end">{label_of(tick)}</text>')
    for tick in columns:
        place = at((tick, rows[0]))[0]
        parts.append(f'<path class="axis" d="M{place:.1f} {bottom}v5"/>')
        parts.append(f'<text x="{place:.1f}" y="{bottom + 19}" text-anchor="middle">{label_of(tick)}</text>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x.title)}</text>')
    parts.append(
        f'<text transform="translate(16 {(TOP + bottom) / 2}) rotate(-90)" text-anchor="middle">{escape(y.title)}</text>'
    )
    legend, height, taken = float(LEFT), 40, list[float]()
    for number, line in enumerate(lines):
        places = [at(point) for point in line.points]
        path = "L".join(f"{across:.1f} {down:.1f}" for across, down in places)
        parts.append(f'<path class="s{number} l{number}" d="M{path}"/>')
        parts += [f'<circle class="s{number}" cx="{across:.1f}" cy="{down:.1f}" r="3"/>' for across, down in places]
        across, down = places[-1]
        while any(abs(down - other) < 13 for other in taken):  # two labels at one height
            down -= 1
        taken.append(down)
        parts.append(
            f'<text class="mark s{number}" x="{across + 8:.1f}" y="{down + 4:.1f}">{label_of(line.points[-1][1])}</text>'
        )
        wide = 47 + 6.6 * len(line.label)
        if legend + wide > WIDTH:  # a second row
            legend, height = float(LEFT), 58
        parts.append(f'<path class="s{number} l{number}" d="M{legend:.0f} {height}h24"/>')
        parts.append(f'<text x="{legend + 29:.0f}" y="{height + 4}">{escape(line.label)}</text>')
        legend += wide
    return "\n".join([*parts, "</svg>", ""])


def save_chart(path: Path, title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> None:
    """Write the chart into a file."""
    path.write_text(chart(title, x, y, lines), encoding="utf-8")
