"""Text made safe to show: in a log, on a terminal, in an error message."""

from __future__ import annotations

import re

# Control characters, marks that turn the writing direction, line separators and halves of characters.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_WORDS = re.compile(r"([\s,]+)")


def printable(text: str) -> str:
    r"""Returns the text with escapes (``\n``, ``\x1b``, ``\u202e``) for what would start a line, move a cursor or turn the writing direction.

    Escaped is all that Unicode does not count as printable: control and format characters, line separators, surrogates,
    unassigned ones, and blanks other than the space.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode("ascii") for each in text
    )


def is_safe_name(text: str) -> bool:
    """Whether a name can be shown as it is: no character in it hides another, starts a line or moves a cursor."""
    return _UNSAFE.search(text) is None


def hide_passwords(text: str) -> str:
    """Returns the text without the user names and passwords of the URLs in it: ``http://***@host/``.

    Where a password has a character that should have been percent-encoded, more than the password is hidden.
    """
    return "".join(map(_without_userinfo, _WORDS.split(text))) if "@" in text else text


def _without_userinfo(word: str) -> str:
    scheme, slashes, rest = word.partition("//")
    return f"{scheme}//***@{rest.rpartition('@')[2]}" if slashes and "@" in rest else word
