from __future__ import annotations

from pathlib import Path

import pytest

from ingest.atomic import replacing


def test_a_file_is_replaced_at_the_end_and_never_in_part(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "state.json"
    for text in (b"old", b"new"):
        with replacing(path) as file:
            file.write(text)
    with pytest.raises(TypeError), replacing(path) as file:
        file.write("no bytes")  # type: ignore[call-overload]
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]
