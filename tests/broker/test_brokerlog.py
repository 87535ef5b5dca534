from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from tests.broker.logs import append, flip, opened, segment_files, single


def brokerlog(directory: Path, *arguments: object) -> str:
    out = StringIO()
    call_command("brokerlog", *map(str, arguments), directory=directory, stdout=out)
    return out.getvalue()


@pytest.fixture
def log_directory(tmp_path: Path) -> Path:
    with opened(tmp_path, segment_bytes=4096) as log:
        append(log, single(b'{"a": "\xc3\xa9"}', "00000000000000aa", 7))
        for number in range(1, 40):
            append(log, b"%d" % number)
    return tmp_path


def test_verify(log_directory: Path) -> None:
    text = brokerlog(log_directory, "verify")
    assert "00000000000000000000.log: 27 records, offsets 0 to 26" in text
    assert text.endswith("40 records in 2 segments, 0 lost, 0 bytes torn\n")


def test_it_runs_as_people_run_it(log_directory: Path) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "brokerlog", "--directory", str(log_directory), "verify"],
        cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("40 records in 2 segments, 0 lost, 0 bytes torn\n")


def test_verify_of_a_damaged_log_ends_with_2(log_directory: Path) -> None:
    flip(segment_files(log_directory)[0], 400)
    with pytest.raises(CommandError) as raised:
        brokerlog(log_directory, "verify")
    assert raised.value.returncode == 2


def test_dump(log_directory: Path) -> None:
    lines = [json.loads(line) for line in brokerlog(log_directory, "dump", 0, 1).splitlines()]
    assert [line["offset"] for line in lines] == [0, 1]
    assert lines[0]["payload"] == {"a": "é"}
    assert lines[0]["message_id"] == "00000000000000aa:000000000007"
    assert len(brokerlog(log_directory, "dump").splitlines()) == 40


def test_repair(log_directory: Path) -> None:
    with segment_files(log_directory)[-1].open("ab") as file:
        file.write(b"torn")
    assert brokerlog(log_directory, "repair").endswith("40 records in 2 segments, 0 lost, 0 bytes torn\n")


def test_a_folder_without_a_log_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="holds no log"):
        brokerlog(tmp_path, "verify")
