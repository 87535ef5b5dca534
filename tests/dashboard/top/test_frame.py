from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from dashboard.top.feed import Counts, EventCounts, EventNow, Snapshot
from dashboard.top.frame import frame
from tests.dashboard.top.snapshots import TIME, pipeline, snapshot, summary


def lines(shown: Snapshot, width: int, height: int | None = None, footer: str = "", rows: int = 1000) -> list[str]:
    """What a terminal without colours shows."""
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None)
    console.print(frame(summary(shown, rows), width=width, height=height, footer=footer))
    return out.getvalue().splitlines()


def broken(hosts: int) -> Snapshot:
    """A fleet in which every fifth GPU is missing, and one host is silent."""
    state = [1] * 8 + [2 if number % 5 == 0 else 0 for number in range(8, hosts * 8)]
    return snapshot(hosts, 8, state=state)


@pytest.mark.parametrize("hosts", [1, 4, 31, 1250])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 60), (100, 30), (150, 24), (160, 45), (220, 50)])
def test_it_fits_the_terminal(hosts: int, width: int, height: int) -> None:
    for shown in (snapshot(hosts, 8), broken(hosts)):
        found = lines(shown, width, height, footer="q: quit")
        assert len(found) <= height
        assert max(map(cell_len, found)) <= width
        text = "\n".join(found)
        assert "Busiest" in text
        assert "Hottest" in text
        assert "Idle, holding memory" in text
        assert found[-1].strip() == "q: quit"


def test_at_80_columns_nothing_that_matters_is_cut() -> None:
    text = "\n".join(lines(broken(31), 80, 40))
    assert "host-001  gpus 2, 7: GPU-0000000a, GPU-0000000f" in text
    assert "host-030  gpu 7 100 % 37 °C  318 W   39/80 GiB train-1" in text
    assert "newest 3 s old; lag 12 messages; 1,234,567 readings stored, 7 refused" in text
    assert "192 of 248 report, 48 missing, 8 stale; 31 hosts, 1 of them idle" in text
    assert "mean 43.8 %, p95 100 %; 2 at 100 %, 8 idle, 4 of these hold memory" in text
    assert "9.5 of 19.3 TiB; 74.4 kW, 5.0 kW of it idle" in text
    assert "…" not in text


def test_a_wide_terminal_has_lists_side_by_side_with_namespaces() -> None:
    found = lines(snapshot(), 220, 40)
    heads = [line for line in found if "Busiest" in line and "Hottest" in line]
    assert len(heads) == 1
    assert any("red/train-1" in line for line in found)


def test_without_a_height_all_rows_asked_for_are_shown() -> None:
    found = lines(snapshot(4, 8), 80, rows=12)
    assert sum("gpu " in line for line in found) == 12 + 12 + 4


def test_what_needs_attention_is_counted_where_there_is_no_room() -> None:
    text = "\n".join(lines(broken(31), 80, 24))
    assert "and 28 more" in text


def test_names_from_readings_cannot_move_the_cursor() -> None:
    shown = snapshot(2, 2, name="a\x1b[2J[red]{}", state=[0, 0, 0, 2])
    shown.fleet.pods = ["pod\nnext"]
    shown.fleet.namespaces = ["name\u202e", "x"]
    text = "\n".join(lines(shown, 160))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert r"a\x1b[2J[red]0" in text
    assert r"pod\nnext" in text


def test_texts_from_a_service_are_no_markup() -> None:
    shown = snapshot(4, 8)
    shown.fleet.namespaces = ["[/blue]", "[red]"]
    shown.fleet.newest, shown.fleet.live, shown.pipeline = "[/x]\x1b[2J", False, None
    text = "\n".join(lines(shown, 160))
    assert "Idle, holding memory: [/blue] 4" in text
    assert r"newest [/x]\x1b[2J UTC" in text


def test_unknown_values_are_a_dash_and_no_zero() -> None:
    shown = snapshot(1, 1, utilisation=[5], temperature=[None], power=[None], memory_used=[None], slot=[-1])
    row = next(line for line in lines(shown, 80) if "host-000" in line)
    assert row.split() == ["host-000", "gpu", "?", "5", "%", "–", "°C", "–", "W", "–/80", "GiB"]


def test_an_empty_fleet_names_the_next_command() -> None:
    shown = snapshot(0, 0)
    shown.fleet.newest = None
    shown.fleet.counts = Counts(*[0] * 11)
    found = "\n".join(lines(shown, 80, 24))
    assert "make run" in found
    assert "Busiest" not in found


@pytest.mark.parametrize(
    ("live", "age", "text"),
    [
        (True, 3.4, "3 s old"),
        (True, 400.0, "7 min old"),
        (True, 90_000.0, "25 h old"),
        (False, 9e6, "2026-11-28 11:33:00 UTC"),
    ],
)
def test_the_age_of_the_newest_reading_or_its_day(live: bool, age: float, text: str) -> None:
    shown = snapshot()
    shown.fleet.live = live
    shown.pipeline = pipeline()
    shown.pipeline.store.newest_age_seconds = age
    assert f"newest {text}" in "\n".join(lines(shown, 80))


def test_colour_is_never_the_only_sign() -> None:
    """With and without colours the words are the same."""
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system="standard")
    console.print(frame(summary(broken(4)), width=80, height=40))
    coloured = out.getvalue()
    assert "\x1b[1;31m" in coloured
    plain = re.sub(r"\x1b\[[\d;]*m", "", coloured).splitlines()
    assert [line.rstrip() for line in plain] == [line.rstrip() for line in lines(broken(4), 80, 40)]


def test_open_events_are_counted_and_marked_with_a_shape_and_a_word() -> None:
    shown = snapshot(1, 4, mark=[0, 3, 2, 1])
    shown.fleet.events = EventCounts(1, 2, 0)
    shown.events = [EventNow("hot", "Hot [core]\x1b[2J", "critical", "host-000", 3, TIME, "<b>")]
    text = "\n".join(lines(shown, 120))
    assert "Events  ⬣ 1 critical, ▲ 2 warning" in text
    assert "⬣ host-000" in text
    assert r"critical host-000  Hot [core]\x1b[2J, gpu 3, since 2026-11-28 11:33: <b>" in text
    assert "Events  none open" in "\n".join(lines(snapshot(1, 1), 80))
