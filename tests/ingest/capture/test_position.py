from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec
import pytest

from ingest.capture.position import ResumeState, ResumeStore, SourcePosition
from ingest.errors import StateError


def a_state(path: Path, position: int = 100, timestamps: str = "shift") -> ResumeState:
    with path.open("rb") as file:
        return ResumeState.at(str(path), file, SourcePosition(position, 3, 7_000_000_000), timestamps)


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "capture.csv"
    path.write_bytes(b"0123456789" * 20_000)
    return path


@pytest.fixture
def store(tmp_path: Path) -> ResumeStore:
    store = ResumeStore(tmp_path / "state", "streamer-1", "capture.csv")
    store.prepare()
    return store


def fits(state: ResumeState, path: Path, timestamps: str = "shift") -> bool:
    with path.open("rb") as file:
        return state.fits(str(path), file, timestamps)


def test_what_is_saved_is_loaded_and_cleared(store: ResumeStore, capture: Path) -> None:
    assert store.load() is None
    for position in (100, 200):
        store.save(a_state(capture, position))
        assert store.load() == a_state(capture, position)
    assert [path.name for path in store.path.parent.iterdir()] == [store.path.name]
    store.clear()
    store.clear()
    assert store.load() is None


def test_each_streamer_and_capture_has_its_own_position(tmp_path: Path) -> None:
    paths = {ResumeStore(tmp_path, name, source).path for name in ("a", "b.1") for source in ("x.csv", "y.csv")}
    assert len(paths) == 4
    assert ResumeStore(tmp_path, "a", "x.csv").path == ResumeStore(tmp_path, "a", os.path.abspath("x.csv")).path


@pytest.mark.parametrize("content", [b"", b"{", b'{"path": 3}', b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_makes_no_sense_is_said_and_ignored(
    store: ResumeStore, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store.path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert store.load() is None
    assert "starting from the beginning" in caplog.text


def test_the_same_file_fits_also_when_it_has_grown(capture: Path) -> None:
    state = a_state(capture, 100_000)
    assert fits(state, capture)
    with capture.open("ab") as file:
        file.write(b"more")
    assert fits(state, capture)


def test_another_file_does_not_fit(capture: Path, tmp_path: Path) -> None:
    state = a_state(capture, 150_000)
    assert not fits(state, capture, "source")
    assert not fits(msgspec.structs.replace(state, path="/elsewhere.csv"), capture)

    copy = tmp_path / "copy.csv"
    copy.write_bytes(capture.read_bytes())
    os.replace(copy, capture)
    assert not fits(state, capture)


@pytest.mark.parametrize("changed", [0, 60_000, 149_999])
def test_a_file_written_over_does_not_fit(capture: Path, changed: int) -> None:
    state = a_state(capture, 150_000)
    with capture.open("r+b") as file:
        file.seek(changed)
        file.write(b"x")
    assert not fits(state, capture)


def test_a_file_that_shrank_does_not_fit(capture: Path) -> None:
    state = a_state(capture, 150_000)
    os.truncate(capture, 149_999)
    assert not fits(state, capture)


def test_a_name_that_is_not_unicode_can_be_resumed(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.csv"))
    path.write_bytes(b"x" * 200)
    store = ResumeStore(tmp_path, "streamer-1", str(path))
    store.prepare()
    with path.open("rb") as file:
        store.save(ResumeState.at(str(path), file, SourcePosition(100, 2, 0), "auto"))
        state = store.load()
        assert state is not None
        assert state.fits(str(path), file, "auto")


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, capture: Path) -> None:
    (tmp_path / "file").write_text("")
    store = ResumeStore(tmp_path / "file", "streamer-1", "capture.csv")
    for call in (store.prepare, store.load, lambda: store.save(a_state(capture))):
        with pytest.raises(
            StateError, match=r"STATE_DIR \(--state-dir\): cannot keep the resume position in .*Not a dir"
        ):
            call()
    folder = ResumeStore(tmp_path, "streamer-1", "capture.csv")
    folder.path.mkdir(parents=True)
    with pytest.raises(StateError):
        folder.clear()
