from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ingest.dead_letters import DeadLetters, read_letters, shorten


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_letters_are_appended_one_json_object_a_line(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path, "collector-1")
    assert letters.write([{"offset": 1, "reason": "a\nb"}, {"offset": 2}])
    assert DeadLetters(tmp_path, "collector-1").write([{"offset": 3}])
    assert lines(tmp_path / "dead-letters" / "collector-1.ndjson") == [
        {"offset": 1, "reason": "a\nb"},
        {"offset": 2},
        {"offset": 3},
    ]


def test_without_letters_no_file_is_made(tmp_path: Path) -> None:
    assert DeadLetters(tmp_path, "x").write([])
    assert list(tmp_path.iterdir()) == []


def test_full_files_are_rotated_and_the_oldest_go(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path, "x.1", max_bytes=40, files_kept=2)
    for number in range(8):
        letters.write([{"number": number, "pad": "p"}])  # 24 bytes a line: one in a file
    folder = tmp_path / "dead-letters"
    assert sorted(path.name for path in folder.iterdir()) == ["x.1.1.ndjson", "x.1.2.ndjson", "x.1.ndjson"]
    assert [lines(folder / name)[0]["number"] for name in ("x.1.ndjson", "x.1.1.ndjson", "x.1.2.ndjson")] == [7, 6, 5]


def test_one_write_larger_than_a_file_stays_whole(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path, "x", max_bytes=10)
    letters.write([{"number": number} for number in range(5)])
    assert len(lines(letters.path)) == 5


def test_a_disk_that_fails_is_said_once_and_raises_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocker = tmp_path / "dead-letters"
    blocker.write_text("")
    letters = DeadLetters(tmp_path, "x")
    with caplog.at_level(logging.INFO):
        assert not letters.write([{"offset": 1}])
        assert not letters.write([{"offset": 2}])
        assert len(caplog.records) == 1
        blocker.unlink()
        assert letters.write([{"offset": 3}])
    assert "again" in caplog.text
    assert lines(letters.path) == [{"offset": 3}]


def test_text_that_is_not_unicode_is_kept_readable(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path, "x")
    assert letters.write([{"source": "caf\udce9.csv"}])
    assert lines(letters.path) == [{"source": "caf\udce9.csv"}]


def test_very_long_texts_are_cut() -> None:
    assert shorten("short") == "short"
    assert len(shorten("x" * 1_000_000)) < 300_000


def test_a_torn_line_does_not_take_the_next_letter_with_it(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path, "x")
    letters.write([{"number": 1}])
    with letters.path.open("ab") as file:
        file.write(b'{"number": 2, "pad')
    letters.write([{"number": 3}])
    torn: list[Path] = []
    assert [letter.fields["number"] for letter in read_letters([letters.path], torn=torn.append)] == [1, 3]
    assert torn == [letters.path]


def test_a_write_that_failed_is_cut_back(tmp_path: Path) -> None:
    """A limit on the size of files ends the second write in its middle, as a full disk does."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from ingest.dead_letters import DeadLetters\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        "letters = DeadLetters(Path(sys.argv[1]), 'x')\n"
        "print(letters.write([{'n': 1}]), letters.write([{'n': 2, 'pad': 'p' * 400}]), letters.write([{'n': 3}]))\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "False", "True"]
    assert [each["n"] for each in lines(tmp_path / "dead-letters" / "x.ndjson")] == [1, 3]


def test_a_line_nested_too_deeply_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson"
    path.write_text("[" * 200_000 + '\n{"reason":"blank"}\n')
    assert [letter.reason for letter in read_letters([path])] == ["blank"]
