"""One frame of ``manage.py top`` for a terminal. Readable at 80 columns; from 150 on the lists stand side by side."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dashboard.top.summary import Attention, Summary, TopGpu
from readings.text import printable

WIDE = 150
_HEAD_LINES = 6
_MOST_ROWS = 40
_FEWEST_ROWS = 3
_STYLES = {
    "critical": "bold red",
    "warning": "yellow",
    "info": "cyan",
    "missing": "bold red",
    "stale": "yellow",
    "broker": "bold red",
    "collector": "bold red",
    "pipeline": "bold red",
}
_NONE = "–"
_GLYPHS = {"critical": "⬣", "warning": "▲", "info": "●"}
_RECENT_SECONDS = 3600.0  # older ones are of a capture, which has a day of its own
_LONGEST_NAME = 24


def frame(summary: Summary, *, width: int, height: int | None, footer: str = "") -> RenderableType:
    """The frame, in ``height`` lines at most; None: with all rows of the lists."""
    head = [_title(summary), _figures(summary)]
    if not summary.counts.expected:
        empty = "No GPU has reported yet. make run starts a synthetic fleet; CSV_PATH=capture.csv make run streams a capture."
        return Group(*head, Text(""), Text(empty), *_foot(footer))
    is_wide = width >= WIDE
    room = None if height is None else height - _HEAD_LINES - bool(footer)
    lists, most = _room(summary, room, is_wide=is_wide)
    shown = {
        "Busiest": summary.busiest[:lists],
        "Hottest": summary.hottest[:lists],
        _held_title(summary, width // (1 + is_wide)): summary.idle_held[:lists],
    }
    lengths = (len(printable(gpu.hostname)) for gpus in shown.values() for gpu in gpus)
    names = min(_LONGEST_NAME, max(lengths, default=0))
    is_narrow = width < (200 if is_wide else 100)
    tables = [_table(title, gpus, names, is_narrow=is_narrow) for title, gpus in shown.items()]
    attention = _attention(summary.attention, most)
    if not is_wide:
        return Group(*head, *attention, *tables, *_foot(footer))
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(tables[0], tables[1])
    grid.add_row(tables[2], Group(*attention))
    return Group(*head, grid, *_foot(footer))


def _room(summary: Summary, room: int | None, *, is_wide: bool) -> tuple[int, int]:
    """How many rows each list has, and how many lines what needs attention has."""
    if room is None:
        return _MOST_ROWS, _MOST_ROWS
    if is_wide:
        rows = max(_FEWEST_ROWS, room // 2 - 1)
        return rows, rows - 1
    wanted = len(summary.attention)
    most = min(wanted, max(2, room // 5))
    return max(_FEWEST_ROWS, (room - most - (2 if wanted > most else bool(wanted)) - 3) // 3), most


def _title(summary: Summary) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append("GPU fleet", "bold")
    text.append(f"  {summary.source}  {summary.time[:19].replace('T', ' ')} UTC")
    return text


def _figures(summary: Summary) -> RenderableType:
    counts, totals = summary.counts, summary.totals
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True, min_width=4)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    gpus = Text(f"{counts.reporting:,} of {counts.expected:,} report")
    for number, word in ((counts.missing, "missing"), (counts.stale, "stale")):
        gpus.append(", ")
        gpus.append(f"{number:,} {word}", _STYLES[word] if number else "")
    if counts.maintenance:
        gpus.append(f", {counts.maintenance:,} in maintenance")
    gpus.append(f"; {counts.hosts:,} hosts, {counts.idle_hosts:,} of them idle")
    grid.add_row("GPUs", gpus)
    load = f"mean {_number(totals.utilisation_mean, 1)} %, p95 {_number(totals.utilisation_p95)} %; {counts.at_full:,} at 100 %"
    grid.add_row("Load", f"{load}, {counts.idle:,} idle, {counts.idle_held:,} of these hold memory")
    memory = f"{_tib(totals.memory_used_mib)} of {_tib(totals.memory_total_mib)} TiB"
    grid.add_row("Use", f"{memory}; {_kw(totals.power_watts)} kW, {_kw(totals.idle_power_watts)} kW of it idle")
    events = Text("none open")
    shown = [(count, word) for word in ("critical", "warning", "info") if (count := getattr(summary.events, word))]
    if shown:
        events = Text(", ").join(Text(f"{_GLYPHS[word]} {count:,} {word}", _STYLES[word]) for count, word in shown)
    grid.add_row("Events", events)
    grid.add_row("Data", Text(_data(summary)))
    return grid


def _data(summary: Summary) -> str:
    newest = _NONE if summary.newest is None else printable(summary.newest[:19].replace("T", " ")) + " UTC"
    age = summary.newest_age_seconds
    if age is not None and (summary.live or age < _RECENT_SECONDS):
        newest = f"{_age(age)} old"
    pipeline = summary.pipeline
    if pipeline is None:
        return f"newest {newest}"
    lag = _NONE if pipeline.lag_messages is None else f"{pipeline.lag_messages:,}"
    refused = f"{pipeline.readings_refused:,} refused"
    return f"newest {newest}; lag {lag} messages; {pipeline.readings_stored:,} readings stored, {refused}"


def _attention(found: Sequence[Attention], most: int) -> list[Text]:
    """What needs attention, a line each; the last line says how many more there are."""
    if not found:
        return []
    lines = [Text("Needs attention", "bold")]
    for each in found[:most]:
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"  {each.kind:<8} ", _STYLES[each.kind])
        line.append(printable(f"{each.hostname}  {each.text}" if each.hostname else each.text))
        lines.append(line)
    if len(found) > most:
        lines.append(Text(f"  and {len(found) - most:,} more", "dim"))
    return lines


def _held_title(summary: Summary, width: int) -> str:
    title = "Idle, holding memory"
    by = [f"{printable(each.namespace) or 'no namespace'} {each.gpus:,}" for each in summary.idle_held_by_namespace]
    for count in range(len(by), 0, -1):
        more = f", {len(by) - count} more" if count < len(by) else ""
        if len(text := f"{title}: {', '.join(by[:count])}{more}") < width:
            return text
    return title


def _table(title: str, gpus: Sequence[TopGpu], names: int, *, is_narrow: bool) -> RenderableType:
    """A list of GPUs. Their names have a column of that width; a narrow table leaves the namespaces out."""
    table = Table(
        title=Text(title),  # a name in it may look like markup
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 1, 0, 0),
        expand=True,
        show_header=False,
    )
    table.add_column(width=names + 2, no_wrap=True, overflow="ellipsis")
    for width in (6, 5, 5, 6, 11):
        table.add_column(width=width, justify="right", no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    for gpu in gpus:
        table.add_row(
            Text.assemble((f"{_GLYPHS.get(gpu.event, ' ')} ", _STYLES.get(gpu.event, "")), printable(gpu.hostname)),
            "gpu ?" if gpu.slot < 0 else f"gpu {gpu.slot}",
            f"{_number(gpu.utilisation)} %",
            f"{_number(gpu.temperature)} °C",
            f"{_number(gpu.power_watts)} W",
            f"{_gib(gpu.memory_used_mib)}/{_gib(gpu.memory_total_mib)} GiB",
            Text(printable(gpu.pod if is_narrow else "/".join(filter(None, (gpu.namespace, gpu.pod))))),
        )
    if not gpus:
        table.add_row(Text("  none", "dim"))
    return table


def _foot(footer: str) -> list[Text]:
    return [Text(footer, "dim", no_wrap=True, overflow="ellipsis")] if footer else []


def _number(value: float | None, digits: int = 0) -> str:
    return _NONE if value is None else f"{value:,.{digits}f}"


def _gib(mib: float | None) -> str:
    return _NONE if mib is None else f"{mib / 1024:.0f}"


def _tib(mib: float | None) -> str:
    return _NONE if mib is None else f"{mib / 1048576:,.1f}"


def _kw(watts: float | None) -> str:
    return _NONE if watts is None else f"{watts / 1000:,.1f}"


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.0f} h"
