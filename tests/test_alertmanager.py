"""Where the tests' Alertmanager comes from: found, or asked for in a line that says how."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.alertmanager import ROOT, find_alertmanager

SCRIPT = ROOT / "ci" / "alertmanager.sh"


def script(tmp_path: Path, *arguments: str, tools: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the script with an empty cache and, of the tools it may use, only these."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    for name in ("bash", "mkdir", "flock", "mktemp", "rm", *tools):
        (folder / name).symlink_to(shutil.which(name) or "/bin/true")
    return subprocess.run(
        [str(folder / "bash"), str(SCRIPT), *arguments],
        env={"PATH": str(folder), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("name", ["alertmanager", "prometheus-alertmanager"])
def test_one_on_path_is_taken(tmp_path: Path, name: str) -> None:
    found = script(tmp_path, tools=(name,))
    assert (found.returncode, found.stdout.strip()) == (0, str(tmp_path / "bin" / name))


def test_one_in_the_cache_is_taken(tmp_path: Path) -> None:
    cached = tmp_path / ".cache" / "gpu-telemetry" / "alertmanager" / "alertmanager"
    cached.parent.mkdir(parents=True)
    cached.touch(0o755)
    found = script(tmp_path, "--find")
    assert (found.returncode, found.stdout.strip()) == (0, str(cached))


def test_looking_alone_gets_nothing(tmp_path: Path) -> None:
    found = script(tmp_path, "--find")
    assert (found.returncode, found.stdout) == (1, "")
    assert not (tmp_path / ".cache").exists()


@pytest.mark.parametrize(("tools", "missing"), [((), "apt-get"), (("apt-get",), "dpkg-deb")])
def test_a_tool_that_is_missing_is_named_in_one_line(tmp_path: Path, tools: tuple[str, ...], missing: str) -> None:
    found = script(tmp_path, tools=tools)
    assert found.returncode == 1
    assert found.stderr.startswith("error: the Alertmanager")
    assert missing in found.stderr
    assert found.stderr.count("\n") == 1


def test_without_one_a_test_is_skipped_and_fails_where_it_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bash", "env"):
        (tmp_path / name).symlink_to(shutil.which(name) or "/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("REQUIRE_ALERTMANAGER", "")
    with pytest.raises(pytest.skip.Exception, match="make alertmanager"):
        find_alertmanager()
    monkeypatch.setenv("REQUIRE_ALERTMANAGER", "1")
    with pytest.raises(pytest.fail.Exception, match="make alertmanager"):
        find_alertmanager()
    assert os.environ["PATH"] == str(tmp_path)
