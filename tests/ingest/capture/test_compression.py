from __future__ import annotations

import gzip
import io
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from ingest.capture.compression import PeekableFile, open_capture
from ingest.capture.files import find_captures
from ingest.capture.position import SourcePosition
from ingest.capture.source import CsvSource
from ingest.errors import SourceError
from tests.ingest.captures import read_capture, read_rest, readings_in, write_capture


def pack(path: Path, data: bytes, kind: str) -> Path:
    """``data`` in two members of a compressed file."""
    middle = len(data) // 2
    squeeze = gzip.compress if kind == "gz" else zstandard.ZstdCompressor().compress
    packed = path.with_suffix(f".csv.{kind}")
    packed.write_bytes(squeeze(data[:middle]) + squeeze(data[middle:]))
    return packed


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_compressed_captures_are_read_as_plain_ones(tmp_path: Path, kind: str) -> None:
    plain = write_capture(tmp_path / "capture.csv", gpus=20, samples=20)
    source = CsvSource(str(pack(plain, plain.read_bytes(), kind)), needs_timestamp=True)
    first = source.read(500)
    state = source.state_at(SourcePosition(first.position, first.line, 0), "source")
    rest = read_rest(source)
    begin = list(first.columns.readings())
    assert {(gpu.uuid, *rest) for gpu, *rest in begin + rest.readings} == readings_in(plain)
    assert (len(begin), rest.position) == (500, plain.stat().st_size)
    source.close()
    again = CsvSource(source.path, needs_timestamp=True)
    assert state is not None
    assert again.resume(state, "source")
    assert read_rest(again).readings == rest.readings
    again.rewind()
    assert list(again.read(500).columns.readings()) == begin
    again.close()


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_a_compressed_capture_that_is_cut_gives_what_there_is_and_says_so(tmp_path: Path, kind: str) -> None:
    plain = write_capture(tmp_path / "capture.csv", gpus=100, samples=20)
    packed = pack(plain, plain.read_bytes(), kind)
    packed.write_bytes(packed.read_bytes()[:-500])
    read = read_capture(packed)
    assert 2900 < len(read.readings) < 6000
    assert read.refused[-1].detail == "the compressed file ends before its end"


def test_what_was_read_too_early_is_given_again() -> None:
    file = PeekableFile(io.BufferedReader(io.BytesIO(b"one\ntwo\nthree")))
    assert file.read(6) == b"one\ntw"
    file.push(b"tw")
    assert (file.tell(), file.readline(100)) == (4, b"two\n")
    file.push(b"two\n")
    assert [file.readline(2), file.readline(100), file.read_some(2), file.read(9)] == [b"tw", b"o\n", b"th", b"ree"]
    assert (file.read_some(5), file.tell()) == (b"", 13)
    file.seek(4)
    assert file.readline(9) == b"two\n"
    file.push(b"wo\n")
    buffer = bytearray(6)
    assert (file.readinto(memoryview(buffer)), bytes(buffer), file.tell()) == (6, b"wo\nthr", 11)
    file.push(b"thr")
    assert (file.readinto(memoryview(buffer)), bytes(buffer[:5]), file.tell()) == (5, b"three", 13)
    file.push(b"ee")
    file.push(b"thr")
    assert (file.read(2), file.readline(9)) == (b"th", b"ree")


def test_standard_input_is_a_capture(tmp_path: Path) -> None:
    plain = write_capture(tmp_path / "capture.csv", gpus=5)
    program = (
        "from ingest.capture.source import CsvSource\n"
        "source = CsvSource('-', needs_timestamp=True)\n"
        "count, done = 0, False\n"
        "while not done:\n"
        "    chunk = source.read()\n"
        "    count, done = count + chunk.columns.size, chunk.done\n"
        "import sys; sys.stdout.write(str(count))"
    )
    with plain.open("rb") as file:
        run = subprocess.run([sys.executable, "-c", program], stdin=file, capture_output=True, text=True, check=True)
    assert run.stdout == "15"


def test_a_folder_and_a_pattern_are_all_their_captures_by_name(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv.gz", "c.csv.zst", "notes.txt"):
        (tmp_path / name).write_text("x")
    expected = [str(tmp_path / name) for name in ("a.csv.gz", "b.csv", "c.csv.zst")]
    assert find_captures(str(tmp_path)) == expected
    assert find_captures(str(tmp_path / "*.csv*")) == expected
    assert find_captures("-") == ["-"]
    assert find_captures(str(tmp_path / "none.csv")) == [str(tmp_path / "none.csv")]
    with pytest.raises(SourceError, match="no file is named so"):
        find_captures(str(tmp_path / "x*.csv"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no"):
        find_captures(str(tmp_path / "empty"))


def test_a_plain_file_is_itself(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    with open_capture(str(tmp_path / "x")) as file:
        assert (file.read(), file.tell()) == (b"abc", 3)
