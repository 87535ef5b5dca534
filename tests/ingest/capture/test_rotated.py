from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import pytest
import zstandard

from ingest.capture.compression import open_capture
from ingest.capture.position import ResumeState
from ingest.capture.rotated import Sibling, find_rotated, is_whole, next_rotated, sibling_of
from ingest.errors import SourceError
from tests.ingest.captures import write_capture


def read_to(path: Path, position: int) -> ResumeState:
    with path.open("rb") as file:
        return ResumeState.at(str(path), file, position=position, line=3, timestamps="source", shift_ns=0)


def pack(path: Path, data: bytes) -> Path:
    squeeze = gzip.compress if path.suffix == ".gz" else zstandard.ZstdCompressor().compress
    path.write_bytes(squeeze(data))
    return path


def found(path: Path, state: ResumeState, saved_ns: int = 0) -> str | None:
    sibling = find_rotated(str(path), state, saved_ns)
    return None if sibling is None else os.path.basename(sibling.path)


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return write_capture(tmp_path / "dcgm.csv", gpus=20, samples=10)


@pytest.mark.parametrize("name", ["dcgm.csv.1", "dcgm.1.csv", "dcgm-20250718.csv", "older"])
def test_a_renamed_file_is_found_by_its_inode(capture: Path, name: str) -> None:
    state = read_to(capture, 9000)
    os.rename(capture, capture.with_name(name))
    write_capture(capture, gpus=5)
    assert found(capture, state) == name


@pytest.mark.parametrize("name", ["dcgm.csv.1.gz", "dcgm.csv.zst", "dcgm-20250718.csv.gz"])
@pytest.mark.parametrize("position", [200, 9000, 100_000])
def test_a_compressed_one_is_found_by_what_is_in_it(capture: Path, name: str, position: int) -> None:
    state = read_to(capture, position)
    other = write_capture(capture.with_name("other.csv"), gpus=20, samples=10, start="2025-07-19T00:00:00Z")
    pack(capture.with_name("dcgm.csv.2.gz"), other.read_bytes())
    pack(capture.with_name("dcgm.csv.3.gz"), capture.read_bytes()[: position - 1])
    pack(capture.with_name(name), capture.read_bytes())
    capture.unlink()
    assert found(capture, state) == name


def test_a_file_that_was_copied_and_emptied_is_found_by_what_is_in_the_copy(capture: Path) -> None:
    state = read_to(capture, 9000)
    shutil.copy(capture, capture.with_name("dcgm.csv.1"))
    os.truncate(capture, 0)
    assert found(capture, state) == "dcgm.csv.1"


def test_a_file_under_way_in_its_compressed_form_is_found_again(capture: Path) -> None:
    packed = pack(capture.with_name("dcgm.csv.1.gz"), capture.read_bytes())
    with open_capture(str(packed)) as opened:
        state = ResumeState.at(str(packed), opened, position=9000, line=3, timestamps="source", shift_ns=0)
    os.rename(packed, capture.with_name("dcgm.csv.2.gz"))
    assert found(capture, state) == "dcgm.csv.2.gz"


def test_what_is_not_there_or_another_file_is_not_found(capture: Path) -> None:
    state = read_to(capture, 9000)
    write_capture(capture.with_name("dcgm.csv.1"), gpus=20, samples=10, start="2025-07-19T00:00:00Z")
    pack(capture.with_name("dcgm.csv.2.gz"), b"no capture at all")
    (capture.with_name("dcgm.csv.3.gz")).write_bytes(b"\x1f\x8bbroken")
    (capture.with_name("dcgm.csv.d")).mkdir()
    capture.unlink()
    assert found(capture, state) is None
    with pytest.raises(SourceError, match="cannot look beside it"):
        find_rotated(str(capture.parent / "none" / "x.csv"), state, 0)


def test_of_files_that_begin_alike_it_is_the_one_that_was_written_after_the_last_word(capture: Path) -> None:
    state = read_to(capture, 101)  # the header, which all have
    for number, age in ((1, 10), (2, 20), (3, 30)):
        copy = capture.with_name(f"dcgm.csv.{number}")
        write_capture(copy, gpus=number)
        os.utime(copy, ns=(0, 10**18 - age))
    capture.unlink()
    assert found(capture, state, saved_ns=10**18 - 25) == "dcgm.csv.2"


def test_files_that_came_after_it_and_are_gone_too_are_next_in_their_order(capture: Path) -> None:
    names = ["dcgm.csv.4", "dcgm.csv.3", "dcgm.csv.2.gz", "dcgm.csv.1"]
    for number, name in enumerate(names):
        path = capture.with_name(name)
        path.write_bytes(capture.read_bytes())
        os.utime(path, ns=(0, 10**18 + number))
    for name in ("dcgm.csv.bak", "notes.csv", "dcgm.csv.2"):  # the last is being compressed: it is there twice
        capture.with_name(name).write_bytes(capture.read_bytes())
        os.utime(capture.with_name(name), ns=(0, 10**18 + 2))
    last = sibling_of(str(capture), os.stat(capture.with_name("dcgm.csv.4")).st_ino)
    order = []
    while last is not None:
        last = next_rotated(str(capture), last)
        order.append(last and os.path.basename(last.path))
    assert order == ["dcgm.csv.3", "dcgm.csv.2", "dcgm.csv.1", None]
    assert sibling_of(str(capture), 0) is None


def test_a_compressed_file_is_whole_when_it_has_its_end(capture: Path) -> None:
    packed = pack(capture.with_name("dcgm.csv.1.gz"), capture.read_bytes())
    assert is_whole(str(packed))
    assert is_whole(str(capture))
    packed.write_bytes(packed.read_bytes()[:-20])
    assert not is_whole(str(packed))
    assert is_whole(str(capture.with_name("none")))


def test_the_name_of_a_compressed_file_is_that_of_what_is_in_it() -> None:
    assert Sibling("/logs/dcgm.csv.1.gz", 1, 2).name == Sibling("/logs/dcgm.csv.1", 1, 2).name == "dcgm.csv.1"
