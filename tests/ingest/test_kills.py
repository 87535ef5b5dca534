from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.captures import write_capture
from tests.ingest.kills import BATCHES, GPUS, Minute, Run, check_minutes, play

# Scenario, seed, sizes, and the figures that are known before.
SMALL: dict[str, tuple[str, int, dict[str, Any], dict[str, Any]]] = {
    "all": (
        "all", 20250718, {"rounds": 2, "pause": 1.5},
        {"kills": {"broker": 2, "collector": 2, "streamer": 2}, "expected": 300},
    ),
    "streamer": ("streamer", 20250718, {"rounds": 2, "messages": 350}, {"kills": 2, "rows": 72_000}),
    "broker-away": ("broker-away", 1, {"seconds": 4.0, "targets": 4, "before": 200}, {}),
    "spool-room": ("spool", 21, {"away": 3.0, "rounds": 1, "spool_bytes": "1GiB", "hosts": 2}, {"given_up": 0}),
    "spool-full": ("spool", 21, {"away": 5.0, "rounds": 1, "spool_bytes": "1MiB", "hosts": 40}, {}),
    "collector": (
        "collector", 19, {"rounds": 3},
        {"kills": {"asked": 1, "done": 1, "told": 1}, "expected": 3 * BATCHES * GPUS * 3},
    ),
    "influxd": (
        "influxd", 1, {"readings": 20_000, "rounds": 2, "rate": 4_000, "gpus": 32},
        {"in_capture": 20_160, "series": 32},
    ),
}  # fmt: skip


@pytest.mark.acceptance
@pytest.mark.parametrize("name", SMALL)
def test_nothing_is_lost_and_nothing_is_stored_twice(tmp_path: Path, name: str) -> None:
    scenario, seed, sizes, figures = SMALL[name]
    if scenario in {"all", "streamer"}:
        gpus, samples = (20, 5) if scenario == "all" else (80, 300)
        sizes = {**sizes, "capture": write_capture(tmp_path / "capture.csv", gpus=gpus, samples=samples)}
    run = play(scenario, tmp_path, seed, **sizes)
    assert not run.problems, str(run)
    assert {each: run.figures[each] for each in figures} == figures
    if name == "broker-away":
        assert run.figures["read"] > 200
    if name == "spool-full":
        assert run.figures["given_up"] > 0


@pytest.mark.acceptance
def test_targets_that_hang_or_answer_nonsense_delay_no_other(tmp_path: Path) -> None:
    run = play("targets", tmp_path, 1, targets=20, bad_share=0.1, minutes=1, minute=4.0)
    assert run.figures["healthy"] == 16
    # Of how fresh they are a loaded machine says nothing; that they come again and again it does.
    [minute] = run.figures["minutes"]
    assert minute.readings > 2 * 16 * 25
    assert minute.rss_mib > 0


def a_run() -> Run:
    return Run(Path(), random.Random(1), ExitStack())


def test_what_is_missing_twice_or_foreign_is_no_good() -> None:
    for found, problems in (("ab", []), ("a", ["1 lost"]), ("aab", ["1 twice"]), ("abc", ["1 foreign"])):
        run = a_run()
        run.compare({"a", "b"}, found)
        assert run.problems == problems
        assert str(run).endswith(problems[0] if problems else "good")


def test_what_is_out_of_order_or_twice_in_the_log_is_no_good() -> None:
    for times, problems in (([1, 2], []), ([1, 1], ["1 twice in the log"]), ([2, 1], ["1 out of order"])):
        run = a_run()
        run.compare_order([("a", "m", each, 0.0) for each in times])
        assert run.problems == problems


def test_old_data_and_growing_memory_are_no_good() -> None:
    def good(age_s: float, *memory: float) -> bool:
        run = a_run()
        check_minutes(run, [Minute(age_s, each) for each in memory])
        return not run.problems

    assert good(2.9, 50, 80, 100, 104)
    assert good(2.9, 50)
    assert not good(3.1, 100, 100, 100, 100)
    assert not good(2.9, 100, 100, 100, 106)
