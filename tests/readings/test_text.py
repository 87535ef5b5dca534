from __future__ import annotations

import pytest

from readings.text import hide_passwords, is_safe_name, printable


@pytest.mark.parametrize("text", ["", "node-1", "knöten-1/rack a?b#c%d", "NVIDIA H100 – 80GB ®", "東京", "a\\nb"])
def test_readable_text_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("a\r\tb", r"a\r\tb"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b2J", r"\x9b2J"),
        ("gpu\u202e1", r"gpu\u202e1"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("\u200b\ufeff", r"\u200b\ufeff"),
        ("\udc80", r"\udc80"),
        ("\U000e0041", r"\U000e0041"),
        ("\x00\x7f", r"\x00\x7f"),
    ],
)
def test_what_could_forge_or_hide_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://node-1:9400/metrics", "http://node-1:9400/metrics"),
        ("http://user:hunter2@node-1:9400/metrics", "http://***@node-1:9400/metrics"),
        ("https://user@node-1", "https://***@node-1"),
        ("http://a, http://u:hunter2@b/x,targets.txt", "http://a, http://***@b/x,targets.txt"),
        ("http://u:hunt/er2@b/x", "http://***@b/x"),
        ("http://u:hunt@er2@b/x", "http://***@b/x"),
        ("me@example.com", "me@example.com"),
    ],
)
def test_passwords_in_urls_are_hidden(text: str, shown: str) -> None:
    assert hide_passwords(text) == shown


@pytest.mark.parametrize(
    "text", ["", "knöten-1/rack a?b#c%d", "NVIDIA H100 – 80GB ®", "東京", "a\u00a0b", "👩\u200d🔬"]
)
def test_names_of_any_script_are_safe(text: str) -> None:
    assert is_safe_name(text)


@pytest.mark.parametrize(
    "text", ["\x00", "a\n", "\x1b[2J", "\x7f", "\x9b", "\u061c", "\u200e", "\u202e", "\u2028", "\u2069", "\ud800"]
)
def test_names_that_hide_or_forge_are_not(text: str) -> None:
    assert not is_safe_name(text)
