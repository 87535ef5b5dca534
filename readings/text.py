"""Text of clients, made safe to show: in a log, on a terminal, in an error message."""

from __future__ import annotations


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
