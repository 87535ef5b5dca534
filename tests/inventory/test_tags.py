"""inventory.tags: what people may write as a tag, and what they are told."""

from __future__ import annotations

import pytest

from inventory.tags import MOST_TAGS, MOST_VALUE, TagError, format_tags, parse_tags


def test_lines_become_tags_and_lines_again() -> None:
    tags = parse_tags("  row : 7 \n\nrack: r12\r\nurl:http://x:1/é")
    assert tags == {"rack": "r12", "row": "7", "url": "http://x:1/é"}
    assert list(tags) == ["rack", "row", "url"]
    assert format_tags(tags) == "rack: r12\nrow: 7\nurl: http://x:1/é"
    assert parse_tags(format_tags(tags)) == tags
    assert parse_tags("") == {}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("rack", "colon is missing"),
        (": r12", "begins with a letter"),
        ("7: r12", "begins with a letter"),
        ("a b: c", "begins with a letter"),
        (f"{'n' * 64}: c", "up to 63"),
        ("rack:", "1 to 100 printable"),
        ("rack: \x07", "1 to 100 printable"),
        (f"rack: {'v' * (MOST_VALUE + 1)}", "1 to 100 printable"),
        ("first: 2", "there twice"),
    ],
)
def test_a_bad_line_is_named_with_what_is_allowed(line: str, why: str) -> None:
    with pytest.raises(TagError) as caught:
        parse_tags(f"first: 1\n{line}")
    [problem] = caught.value.problems
    assert problem.startswith("Line 2, “")
    assert why in problem


def test_every_bad_line_is_named() -> None:
    with pytest.raises(TagError) as caught:
        parse_tags("one\ntwo: 2\nthree")
    assert [problem[:6] for problem in caught.value.problems] == ["Line 1", "Line 3"]


def test_there_is_a_limit_to_tags() -> None:
    lines = [f"t{number}: x" for number in range(MOST_TAGS + 1)]
    assert len(parse_tags("\n".join(lines[1:]))) == MOST_TAGS
    with pytest.raises(TagError, match=f"at most {MOST_TAGS}"):
        parse_tags("\n".join(lines))
