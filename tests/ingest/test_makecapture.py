from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command


def test_it_writes_the_capture_and_says_how_much_is_in_it(tmp_path: Path) -> None:
    out = StringIO()
    call_command("makecapture", str(tmp_path / "c.csv"), "--hosts", "1", "--gpus", "2", "--samples", "3", stdout=out)
    assert out.getvalue() == f"{tmp_path / 'c.csv'}: 60 synthetic readings of 2 GPUs\n"
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 61


@pytest.mark.parametrize("value", ["0", "many", "-1"])
def test_a_bad_number_is_named(value: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="whole number from 1"):
        call_command("makecapture", str(tmp_path / "c.csv"), f"--hosts={value}")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match=r"cannot write .*: (Not a directory|File exists)"):
        call_command("makecapture", str(tmp_path / "file" / "c.csv"))
