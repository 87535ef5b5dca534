"""Where Helm and the Kubernetes API of the tests come from: found, or asked for in a line that says how."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helm.chart import ROOT, find_helm
from tests.helm.cluster import find_kubernetes

SCRIPTS = ("helm", "kubernetes")


def script(tmp_path: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script with an empty cache and none of the tools that it builds with."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    for tool in ("bash", "mkdir", "flock", "mktemp", "rm"):
        (folder / tool).unlink(missing_ok=True)
        (folder / tool).symlink_to(shutil.which(tool) or "/bin/true")
    return subprocess.run(
        [str(folder / "bash"), str(ROOT / "ci" / f"{name}.sh"), *arguments],
        env={"PATH": str(folder), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_looking_alone_builds_nothing(tmp_path: Path, name: str) -> None:
    found = script(tmp_path, name, "--find")
    assert (found.returncode, found.stdout) == (1, "")
    assert not (tmp_path / ".cache").exists()


@pytest.mark.parametrize("name", SCRIPTS)
def test_go_is_asked_for_in_one_line(tmp_path: Path, name: str) -> None:
    found = script(tmp_path, name)
    assert found.returncode == 1
    assert found.stderr.startswith("error: ")
    assert "Go" in found.stderr
    assert found.stderr.count("\n") == 1


def test_without_them_a_test_is_skipped_and_fails_where_they_are_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", os.defpath)
    if shutil.which("helm"):
        pytest.skip("there is one on the default PATH")
    for find, variable, target in (
        (find_helm, "REQUIRE_HELM", "make helm"),
        (find_kubernetes, "REQUIRE_KUBERNETES", "make kubernetes"),
    ):
        monkeypatch.setenv(variable, "")
        with pytest.raises(pytest.skip.Exception, match=target):
            find()
        monkeypatch.setenv(variable, "1")
        with pytest.raises(pytest.fail.Exception, match=target):
            find()
