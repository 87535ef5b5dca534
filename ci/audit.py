"""Looks at what the services are made of: known vulnerabilities, licences, a bill of materials. `make audit` runs it.

    python ci/audit.py --python .venv/bin/python --output build/audit

Writes sbom.cdx.json (CycloneDX) and licenses.md there. Exit status: 0 all was checked and is clean, 1 something is wrong,
2 something could not be checked (no network to the vulnerability service, say), which is never taken for clean.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements.txt"
# Licences with which the services may be passed on as they are; each package's must hold one of these words.
ALLOWED = re.compile(
    r"\b(MIT|BSD|0BSD|Apache|PSF|Python Software Foundation|ISC|MPL|Mozilla Public License|LGPL|"
    r"GNU Lesser General Public License|Zlib|Unlicense|CC0)\b"
)
# Whose packages tell none, with what their licence files say.
KNOWN = {"pysimdjson": "MIT"}
TOOLS = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Vulnerabilities:
    """What pip-audit said: findings, and packages that it could not ask about."""

    checked: int
    found: list[str]
    unchecked: list[str]


def parse_audit(text: str) -> Vulnerabilities:
    """pip-audit's JSON. Raises ValueError when it is none."""
    told: dict[str, Any] = json.loads(text)
    found, unchecked, checked = [], [], 0
    for package in told["dependencies"]:
        if "skip_reason" in package:
            unchecked.append(package["name"])
            continue
        checked += 1
        for each in package["vulns"]:
            fixed = ", ".join(each.get("fix_versions", ())) or "no version"
            found.append(f"{package['name']} {package['version']}: {each['id']} (mended in {fixed})")
    return Vulnerabilities(checked, found, unchecked)


def audit_vulnerabilities() -> int:
    """Ask the vulnerability service about every pinned package; the exit status for that."""
    arguments = ["--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json"]
    ran = run("pip-audit", *arguments, "--requirement", REQUIREMENTS)
    try:
        result = parse_audit(ran.stdout)
    except (ValueError, KeyError, TypeError):
        reason = (ran.stderr.strip().splitlines() or ["no answer"])[-1]
        say(f"vulnerabilities: NOT CHECKED: {reason[:300]}")
        return 2
    for line in result.found:
        say(f"vulnerabilities: {line}")
    if result.unchecked:
        say(
            f"vulnerabilities: NOT CHECKED: {len(result.unchecked)} of {result.checked + len(result.unchecked)} packages are not known to the service that was asked"
        )
    if result.found or result.unchecked:
        return 1 if result.found else 2
    say(f"vulnerabilities: none known in {result.checked} packages")
    return 0


def pinned() -> list[str]:
    """The names of the packages that the services need."""
    return re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==", REQUIREMENTS.read_text(), re.MULTILINE)


def audit_licenses(python: Path, output: Path) -> int:
    """List the licence of each package; the exit status."""
    arguments: list[str | Path] = ["--python", python, "--with-urls", "--packages", *pinned()]
    packages: list[dict[str, str]] = json.loads(run("pip-licenses", "--format=json", *arguments).stdout)
    (output / "licenses.md").write_text(run("pip-licenses", "--format=markdown", *arguments).stdout)
    told_by_name = {each["Name"]: each["License"] for each in packages}
    told_by_name |= {name: text for name, text in KNOWN.items() if told_by_name.get(name) == "UNKNOWN"}
    wrong = [f"{name}: {text}" for name, text in told_by_name.items() if not ALLOWED.search(text)]
    for line in wrong:
        say(f"licences: not one of those that are allowed: {line}")
    if not wrong:
        say(f"licences: {len(packages)} packages, all of them allowed; see {output / 'licenses.md'}")
    return 1 if wrong else 0


def write_sbom(output: Path) -> int:
    """Write the bill of materials, from what is pinned; the exit status."""
    path = output / "sbom.cdx.json"
    arguments: list[str | Path] = [
        "--output-reproducible",
        "--of",
        "JSON",
        "-o",
        path,
        "--pyproject",
        ROOT / "pyproject.toml",
    ]
    run("cyclonedx-py", "requirements", *arguments, REQUIREMENTS)
    components = json.loads(path.read_text())["components"]
    missing = sorted(set(map(str.lower, pinned())) - {each["name"].lower() for each in components})
    say(f"bill of materials: {len(components)} components in {path}" + (f"; MISSING: {missing}" if missing else ""))
    return 1 if missing else 0


def run(tool: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one of the tools that are installed beside this interpreter."""
    command = [str(TOOLS / tool), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command


def say(line: str) -> None:
    """For people, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """All checks, each with a line; the worst of their exit statuses, a finding before a check that was not made."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--python", type=Path, default=ROOT / ".venv" / "bin" / "python")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "audit")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    statuses = {audit_vulnerabilities(), audit_licenses(options.python, options.output), write_sbom(options.output)}
    return 1 if 1 in statuses else max(statuses)


if __name__ == "__main__":
    sys.exit(main())
