"""dashboard.menu: the main menu."""

from __future__ import annotations

from dashboard.menu import entries


def test_the_menu_has_the_pages_that_exist_and_marks_one() -> None:
    menu = entries("fleet")
    assert (menu[0].label, menu[0].url, menu[0].current) == ("Fleet", "/", True)
    assert [entry.label for entry in menu if entry.current] == ["Fleet"]
