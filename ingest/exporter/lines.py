"""The lines of an exporter's answer: brought into one form, and taken apart. Each character is read a fixed number of times."""

from __future__ import annotations

import re
from typing import NamedTuple

from readings.labels import Remark, read_labels

# In characters. The longest line with 100 labels of pods has some 8,000.
MAX_LINE = 65_536
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:.\-]*+")
# The labels with their braces, up to the first brace that is in no value. No quantifier gives back what it took.
_LABELS = re.compile(r'\{(?:[^"{}]++|"(?:[^"\\]++|\\.)*+")*+\}', re.DOTALL)
_BLANKS = " \t\r\f\v\ufeff"
# A name of any characters stands quoted before the labels: {"name",label="value"}.
_QUOTED_NAME = re.compile(r'\{\s*+"((?:[^"\\]++|\\.)++)"\s*+(?:,\s*+|(?=\}))')


class Line(NamedTuple):
    """The parts of a line, unchecked: ``rest`` is what follows the labels."""

    name: str
    labels: dict[str, str]
    remarks: list[Remark]
    rest: str


def is_other_text(body: str) -> bool:
    """Whether an answer begins as HTML or JSON does."""
    start = len(body) - len(body.lstrip())
    return body[start : start + 1] == "<" or (
        body[start : start + 1] == "{" and not _QUOTED_NAME.match(body, start, start + MAX_LINE)
    )


def tidy(line: str) -> str:
    """The line with its name first, one blank after its labels, and without blanks and an exemplar around the rest.

    A good line stays as it is.
    """
    line = line.lstrip(_BLANKS)
    start = line.find("{")
    if start == 0 and len(line) <= MAX_LINE and (named := _QUOTED_NAME.match(line)):
        start, line = len(named[1]), f"{named[1]}{{{line[named.end() :]}"
    if start < 0 or len(line) > MAX_LINE:
        return line.rstrip(_BLANKS)
    labels = _LABELS.match(line, start)
    if labels is not None:
        end = labels.end()
        rest = line[end:].partition("#")[0]
    else:  # of labels that are broken the last brace is the end
        head, sign, _ = line.rpartition(" # {")
        if sign and "}" in head:
            line = head
        end = line.rfind("}") + 1
        if not end:
            return line
        rest = line[end:]
    return f"{line[:end]} {rest.strip(_BLANKS)}" if rest else line[:end]


def head_of(line: str) -> str:
    """The part of a line that is the same in each answer."""
    return line.rpartition("} ")[0] or "\n" + line.partition(" ")[0]


def take_apart(line: str) -> Line | None:
    """The name, the labels and the rest. None for a good line without labels. Raises ValueError."""
    if len(line) > MAX_LINE:
        raise ValueError(f"the line has {len(line)} characters: at most {MAX_LINE} are read")
    name = _NAME.match(line)
    if name is None:
        raise ValueError("a line begins with the name of a metric")
    rest = line[name.end() :].lstrip(_BLANKS)
    if not rest.startswith("{"):
        words = rest.split()
        if not words or len(words) > 2:
            raise ValueError("expected a value after the name")
        if not words[0].isascii() or "_" in words[0]:
            raise ValueError(f"{words[0][:40]!r} is not a number")
        float(words[0])  # any number of the format, NaN and infinities included
        return None
    labels = _LABELS.match(rest)
    end = rest.rfind("}") + 1 if labels is None else labels.end()
    if not end:
        raise ValueError("the labels are not closed")
    values, remarks = read_labels(rest[:end])
    return Line(name[0], values, remarks, rest[end:].lstrip(_BLANKS))


def split_rest(rest: str) -> tuple[str, str]:
    """The value and the time (empty: none) after the labels."""
    words = rest.split()
    if len(words) == 2 and not words[1].strip("-0123456789."):
        return words[0], words[1]
    return rest.strip(), ""


def help_texts(body: str) -> list[tuple[str, str]]:
    """The metrics' names and help texts."""
    found = []
    for line in body.split("\n") if "HELP" in body else ():
        words = line.split(None, 3) if line[:1] in "# \t" else []
        if len(words) == 4 and words[:2] == ["#", "HELP"]:
            found.append((words[2], words[3]))
    return found
