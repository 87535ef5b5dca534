from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ingest.parts import MOST_LABELS, MOST_METRICS, Parts

Row = dict[str, str]
BASE = {"UUID": "GPU-1", "gpu": "0", "Hostname": "h", "pod": "p", "DCGM_FI_DRIVER_VERSION": "5"}


def find(parts: Parts, *groups: list[Row], metric: str = "m") -> bool:
    return parts.find(metric, [[{**BASE, **row}.items() for row in group] for group in groups])


@pytest.mark.parametrize(
    ("groups", "found"),
    [
        ([[{"lane": "0"}, {"lane": "1"}]], ["lane"]),
        # Which part it is, not how it is, also where both tell rows apart.
        ([[{"port": "0", "status": "OK"}, {"port": "1", "status": "BAD"}]], ["port"]),
        ([[{"peer": "0", "link": "OK"}, {"peer": "1", "link": "OK"}, {"peer": "2", "link": "BAD"}]], ["peer"]),
        # Two labels where one is not enough.
        ([[{"a": x, "b": y} for x in "01" for y in "01"]], ["a", "b"]),
        # A row for all parts stands beside them.
        ([[{}, {"lane": "0"}, {"lane": "1"}]], ["lane"]),
        # A state is better than a lost row.
        ([[{"status": "OK"}, {"status": "BAD"}]], ["status"]),
        # What all rows share, and who owns, where from and which version, is no part.
        ([[{"lane": "0"}, {"lane": "0"}]], []),
        ([[{"pod": "a"}, {"pod": "b"}]], []),
        ([[{"vgpu": "0"}, {"vgpu": "1"}]], []),
        ([[{"job": "a", "instance": "x:1"}, {"job": "b", "instance": "y:1"}]], []),
        ([[{"DCGM_FI_DRIVER_VERSION": "5"}, {"DCGM_FI_DRIVER_VERSION": "6"}]], []),
        ([[{"firmware_version": "5"}, {"firmware_version": "6"}]], []),
        # Catalogued parts need no finding.
        ([[{"nvlink": "0"}, {"nvlink": "1"}]], []),
        ([[{"nvlink": "0", "lane": "0"}, {"nvlink": "0", "lane": "1"}, {"nvlink": "1", "lane": "0"}]], ["lane"]),
    ],
)
def test_the_labels_that_tell_rows_apart_are_found(groups: list[list[Row]], found: list[str]) -> None:
    parts = Parts()
    assert find(parts, *groups) == bool(found)
    assert list(parts.of("m")) == found
    assert parts.of("other") == ()
    assert find(parts, *groups) is False  # nothing new


def test_what_varies_beside_a_part_is_no_label_of_the_gpu() -> None:
    parts = Parts()
    assert find(parts, [{"nvlink": "0", "speed_now": "5"}, {"nvlink": "1", "speed_now": "6"}])
    assert parts.of("m") == ()
    assert parts.of_readings == {"speed_now"}


def test_what_was_found_is_kept_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "parts" / "streamer-1.json"
    assert find(Parts(path), [{"lane": "0"}, {"lane": "1"}])
    later = Parts(path)
    assert later.of("m") == ("lane",)
    assert later.labels == ("lane",)
    assert find(later, [{"lane": "0"}, {"lane": "1"}]) is False


def test_a_dry_run_reads_what_was_found_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "parts.json"
    find(Parts(path), [{"lane": "0"}, {"lane": "1"}])
    before = path.read_bytes()
    dry = Parts(path, keeps=False)
    assert find(dry, [{"port": "0"}, {"port": "1"}], metric="n")
    assert dry.of("m") == ("lane",)
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_read_or_written_is_said_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    path = tmp_path / "parts.json"
    path.write_text("not JSON")
    assert Parts(path).labels == ()
    assert "so parts are looked for anew" in caplog.text
    below_a_file = path / "x" / "parts.json"
    parts = Parts(below_a_file)
    assert find(parts, [{"lane": "0"}, {"lane": "1"}])
    assert parts.of("m") == ("lane",)
    assert "cannot keep" in caplog.text


def test_labels_and_metrics_are_bounded() -> None:
    parts = Parts()
    rows = [{"a": a, "b": b, "c": c, "d": d} for a in "01" for b in "01" for c in "01" for d in "01"]
    find(parts, rows)
    assert len(parts.of("m")) == MOST_LABELS
    for number in range(MOST_METRICS + 10):
        find(parts, [{"lane": "0"}, {"lane": "1"}], metric=f"m{number}")
    assert sum(bool(parts.of(f"m{number}")) for number in range(MOST_METRICS + 10)) == MOST_METRICS - 1
