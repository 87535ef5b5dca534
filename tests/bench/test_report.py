"""What programs that measure write into the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.report import PAGE, described, machine, put_section, table


def test_a_section_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    begin, end = "<!-- fleet: made by python -m bench.fleet --docs -->", "<!-- end of fleet -->"
    page.write_text(f"# Title\n\n{begin}\nold\n{end}\n\nafter\n")
    for _ in range(2):
        put_section("fleet", "new\n", page)
        assert page.read_text() == f"# Title\n\n{begin}\n\nnew\n\n{end}\n\nafter\n"
    with pytest.raises(ValueError, match="no place for latency"):
        put_section("latency", "new", page)


def test_every_section_of_the_page_can_be_replaced(tmp_path: Path) -> None:
    copy = tmp_path / "page.md"
    copy.write_text(PAGE.read_text())
    for name in ("fleet", "latency", "growth", "longrange"):
        put_section(name, "x", copy)


def test_the_machine_is_described() -> None:
    found = machine()
    assert all(found.values()), found
    for words in (found["cpu"], found["memory"], "Python 3", "numpy"):
        assert words in described(found)


def test_tables_are_markdown() -> None:
    assert table(["GPUs", "s"], [["250", "1.2"]]) == "| GPUs | s |\n| --- | ---: |\n| 250 | 1.2 |"
