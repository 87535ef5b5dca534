"""ci/audit.py never takes what was not checked for clean."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ci import audit


def told(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


GOOD = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"], "aliases": [], "description": ""}]}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found and could not be audited"}


@pytest.mark.parametrize(
    ("answer", "status", "line"),
    [
        (told(GOOD, GOOD), 0, "vulnerabilities: none known in 2 packages"),
        (told(GOOD, BAD), 1, "vulnerabilities: b 2: CVE-1 (mended in 3)"),
        (told(GOOD, SKIPPED), 2, "NOT CHECKED: 1 of 2 packages"),
        (told(BAD, SKIPPED), 1, "NOT CHECKED: 1 of 2 packages"),
        ("", 2, "NOT CHECKED: ConnectionError: no route"),
        ("[]", 2, "NOT CHECKED"),
    ],
)
def test_what_the_vulnerability_service_says(
    answer: str, status: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = subprocess.CompletedProcess((), 0, answer, "Traceback …\nConnectionError: no route\n")
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: ran)  # type: ignore[attr-defined]
    assert audit.audit_vulnerabilities() == status
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    ("license", "status"),
    [
        ("MIT License", 0),
        ("BSD-3-Clause AND 0BSD", 0),
        ("Mozilla Public License 2.0 (MPL 2.0)", 0),
        ("GPL-3.0-only", 1),
        ("UNKNOWN", 1),
    ],
)
def test_a_licence_that_is_not_allowed_is_named(
    license: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ran = subprocess.CompletedProcess((), 0, json.dumps([{"Name": "x", "Version": "1", "License": license}]), "")
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: ran)  # type: ignore[attr-defined]
    assert audit.audit_licenses(Path("python"), tmp_path) == status
    assert ("x: " + license in capsys.readouterr().out) == bool(status)


def test_every_pinned_package_is_looked_at() -> None:
    assert {"django", "psycopg", "psycopg-binary", "drf-spectacular", "numpy"} <= set(audit.pinned())
