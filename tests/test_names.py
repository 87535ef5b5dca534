"""Every environment name that people read is a setting that is there, and every setting can be read about."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from telemetry_site.options import BY_NAME, OPTIONS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "deploy").rglob("*.md")),
    *sorted((ROOT / "helm").rglob("*.md")),
]
# Said to make, to the tests or to a shell, not to a service.
OTHERS = {
    "INFLUX",
    "ORG",
    "BUCKET",
    "PASSWORD",
    "DOCKER_REGISTRY",
    "PYTHON",
    "CAPTURE",
    "TOKEN",
    "VERSION",
    "NAME",
    "PATH",
}
OTHER_KINDS = ("DCGM_", "REQUIRE_", "FAULT_")


def names(text: str) -> set[str]:
    """What looks like the name of an environment variable: NAME= or $NAME, and whatever has an underscore in it."""
    return {
        *re.findall(r"(?<![-\w.])([A-Z][A-Z0-9_]{2,})=", text),
        *re.findall(r"\$\{?([A-Z][A-Z0-9_]{2,})", text),
        *re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", text),
    }


def is_known(name: str) -> bool:
    option = BY_NAME.get(name.removesuffix("_FILE"))
    if option is not None:
        return option.secret or not name.endswith("_FILE")
    return name in OTHERS or name.startswith(OTHER_KINDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_name_that_people_read_is_a_setting(page: Path) -> None:
    assert sorted(name for name in names(page.read_text()) if not is_known(name)) == []


def test_every_setting_can_be_read_about_with_its_default_as_it_is() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", (ROOT / "docs" / "configuration.md").read_text(), re.MULTILINE))
    assert rows == {option.name: f"`{option.default}`" if option.default else "–" for option in OPTIONS}


def test_every_secret_is_named_where_it_says_that_secrets_come_from_files() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith("- Secrets ("))
    told = re.findall(r"`(\w+)`", line.partition(")")[0])
    assert sorted(told) == sorted(option.name for option in OPTIONS if option.secret)


def test_ports_that_people_read_are_those_of_the_settings() -> None:
    text = (ROOT / "README.md").read_text()
    ports = set(re.findall(r"(?:127\.0\.0\.1|localhost):(\d{4,5})\b", text))
    own = {BY_NAME["PORT"].default, *(BY_NAME[name].default.rpartition(":")[2] for name in ("TCP_ADDR", "HTTP_ADDR"))}
    assert ports <= own | {"8086", "9090"}  # InfluxDB's and Prometheus'
