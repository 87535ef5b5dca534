"""Where the tests' influxd comes from: found, or asked for in a line that says how."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.influxd import ROOT, find_binary

SCRIPT = ROOT / "ci" / "influxd.sh"


def script(tmp_path: Path, *arguments: str, tools: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the script with an empty cache and, of the tools it may use, only these."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    for name in ("bash", "mkdir", "flock", "mktemp", "rm", *tools):
        real = shutil.which(name) or "/bin/true"
        (folder / name).symlink_to(real)
    return subprocess.run(
        [str(folder / "bash"), str(SCRIPT), *arguments],
        env={"PATH": str(folder), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_one_on_path_is_taken(tmp_path: Path) -> None:
    found = script(tmp_path, tools=("influxd",))
    assert (found.returncode, found.stdout.strip()) == (0, str(tmp_path / "bin" / "influxd"))


def test_one_in_the_cache_is_taken(tmp_path: Path) -> None:
    cached = tmp_path / ".cache" / "gpu-telemetry" / "influxd-2.9.1" / "influxd"
    cached.parent.mkdir(parents=True)
    cached.touch(0o755)
    for arguments in ([], ["--find"]):
        shutil.rmtree(tmp_path / "bin", ignore_errors=True)
        found = script(tmp_path, *arguments)
        assert (found.returncode, found.stdout.strip()) == (0, str(cached))


def test_looking_alone_builds_nothing(tmp_path: Path) -> None:
    found = script(tmp_path, "--find")
    assert (found.returncode, found.stdout) == (1, "")
    assert not (tmp_path / ".cache").exists()


@pytest.mark.parametrize(
    ("tools", "missing"),
    [((), "Go 1.25"), (("go",), "cargo"), (("go", "cargo"), "clang"), (("go", "cargo", "clang"), "protobuf-compiler")],
)
def test_a_tool_that_is_missing_is_named_in_one_line(tmp_path: Path, tools: tuple[str, ...], missing: str) -> None:
    found = script(tmp_path, tools=tools)
    assert found.returncode == 1
    assert found.stderr.startswith("error: influxd")
    assert missing in found.stderr
    assert found.stderr.count("\n") == 1


def test_without_one_a_test_is_skipped_and_fails_where_it_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if shutil.which("influxd"):
        pytest.skip("there is one on the default PATH")
    monkeypatch.setenv("REQUIRE_INFLUXDB", "")
    with pytest.raises(pytest.skip.Exception, match="make influxd"):
        find_binary()
    monkeypatch.setenv("REQUIRE_INFLUXDB", "1")
    with pytest.raises(pytest.fail.Exception, match="make influxd"):
        find_binary()
