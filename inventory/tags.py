"""Tags as people write them: one ``name: value`` on each line."""

from __future__ import annotations

import re
from collections.abc import Mapping

MOST_TAGS = 32
MOST_VALUE = 100
# It begins with a letter, because a database takes a number for a place in a list.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._/-]{0,62}")
NAME_RULE = "a name begins with a letter and has up to 63 letters, digits and . _ / -"


class TagError(ValueError):
    """Tags that cannot be used. ``problems`` names each bad line, and says what is allowed."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def parse_tags(text: str) -> dict[str, str]:
    """The tags by name, sorted. Empty lines are passed over. Raises TagError."""
    tags: dict[str, str] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, colon, value = (part.strip() for part in line.partition(":"))
        problem = _problem(name, value, is_pair=bool(colon), is_new=name not in tags)
        if problem:
            problems.append(f"Line {number}, “{line.strip()[:80]}”: {problem}.")
        tags[name] = value
    if not problems and len(tags) > MOST_TAGS:
        problems.append(f"{len(tags)} tags: at most {MOST_TAGS} are allowed.")
    if problems:
        raise TagError(problems)
    return dict(sorted(tags.items()))


def _problem(name: str, value: str, *, is_pair: bool, is_new: bool) -> str:
    if not is_pair:
        return "the colon is missing; write name: value"
    if not _NAME.fullmatch(name):
        return NAME_RULE
    if not value or len(value) > MOST_VALUE or not value.isprintable():
        return f"a value has 1 to {MOST_VALUE} printable characters"
    return "" if is_new else f"the name {name} is there twice"


def format_tags(tags: Mapping[str, str]) -> str:
    """One ``name: value`` on each line, sorted by name."""
    return "\n".join(f"{name}: {value}" for name, value in sorted(tags.items()))
