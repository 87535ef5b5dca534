from __future__ import annotations

import pytest

from ingest.exporter.exposition import Exposition
from ingest.exporter.lines import MAX_LINE, head_of, help_texts, split_rest, take_apart, tidy
from tests.costs import cost_of

LABELS = '{gpu="0",UUID="GPU-1"}'


@pytest.mark.parametrize(
    "line",
    [
        f"m{LABELS} 5",
        f"m{LABELS}5",
        f"   m{LABELS}\t5",
        f"\tm{LABELS}   5  ",
        f"\ufeffm{LABELS} 5\r",
        f'm{LABELS} 5 # {{trace="x}} y"}} 1.0',
        f'm{LABELS}5# {{trace="x"}} 1.0',
        f'{{"m",{LABELS[1:]} 5',
        f'\ufeff {{ "m" , {LABELS[1:]}\t5 # {{trace="x"}} 1.0',
    ],
)
def test_every_form_of_a_line_becomes_one(line: str) -> None:
    assert tidy(line) == f"m{LABELS} 5"
    assert tidy(tidy(line)) == tidy(line)


def test_good_lines_are_left_as_they_are() -> None:
    for line in (f"m{LABELS} 5 1752871354000", "x 7", ""):
        assert tidy(line) == line


@pytest.mark.parametrize(
    ("line", "labels", "remarks"),
    [
        ('m{gpu="0",a="x} y # {z"} 5', {"gpu": "0", "a": "x} y # {z"}, 0),
        ('m{gpu="0",a="b"c"} 5', {"gpu": "0"}, 1),
        ('m{gpu="0",host="cut} 5', {"gpu": "0"}, 1),
        ('m{gpu="0",a="b"c"} 5 # {trace="x"} 1.0', {"gpu": "0"}, 1),
        ("m{gpu=0} 5", {}, 1),
        ("m{} 5", {}, 0),
    ],
)
def test_labels_end_at_the_last_brace_that_is_in_no_value(line: str, labels: dict[str, str], remarks: int) -> None:
    parsed = take_apart(tidy(line))
    assert parsed is not None
    assert (parsed.name, parsed.labels, len(parsed.remarks), parsed.rest) == ("m", labels, remarks, "5")


@pytest.mark.parametrize("line", ["m 5", "m 5 1752871354", "m NaN", "m:n_o.p-q +Inf"])
def test_a_line_without_labels_is_of_no_gpu(line: str) -> None:
    assert take_apart(line) is None


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("9m 5", "begins with the name"),
        ("m", "expected a value"),
        ("m one", "could not convert"),
        ("m 1_0", "'1_0' is not a number"),
        ('m{gpu="0 5', "not closed"),
        ("m" * (MAX_LINE + 1), f"has {MAX_LINE + 1} characters: at most {MAX_LINE} are read"),
    ],
)
def test_what_is_no_line_of_metrics_says_why(line: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        take_apart(line)


def test_the_head_is_what_stays_and_the_rest_has_a_value_and_perhaps_a_time() -> None:
    assert head_of(f"m{LABELS} 5 6") == f"m{LABELS}".removesuffix("}")
    assert head_of("m 5") == "\nm"
    assert split_rest("5 1752871354000") == ("5", "1752871354000")
    assert split_rest("ERROR - NO TEXT") == ("ERROR - NO TEXT", "")


def test_help_texts_are_found_however_they_are_indented() -> None:
    body = "# HELP a Of a.\n  # HELP\tb   Of b (%).\n# TYPE a gauge\n#HELP c no\na 5 HELP\n# HELP d\n"
    assert help_texts(body) == [("a", "Of a."), ("b", "Of b (%).")]


PIECES = [
    *(
        "}",
        "{",
        '"',
        "\\",
        ",",
        " ",
        "\t",
        "#",
        "# {",
        " # {",
        "} # {",
        '}"',
        '{"',
        "a",
        "a{",
        'a="',
        'm{a="b"}',
        "} ",
        "}\n",
    ),
    *('m{a="', 'm{a="b",', "m{a=b} 1\n", "# HELP ", "# HELP a", "#\t", " \n", "\ufeff", '\\"', "m 1 ", "1", "m{} 1 2 "),
    *(
        'm{UUID="GPU-1"} 1\n',
        'm{UUID="GPU-1",',
        'DCGM_a{UUID="GPU-1",a="b"c"} 1\n',
        "DCGM_a 1\n",
        "}\x0b",
        'm{UUID="GPU-1"}\n',
    ),
]


@pytest.mark.parametrize("piece", PIECES)
def test_an_answer_of_twice_the_size_costs_twice_as_much(piece: str) -> None:
    """Whatever it is made of. 32 KiB of some of these once took half a minute."""

    def read(body: str) -> None:
        exporter = Exposition("h")
        for _ in range(2):
            exporter.read(body, 1_752_871_354_000_000_000)

    for around in ("{}", 'm{UUID="GPU-1",a="{}"} 1\n', 'm{UUID="GPU-1",{}} 1\n'):
        sizes = (16_000, 64_000)  # within the longest line
        cost = cost_of(read, [around.replace("{}", piece * (size // len(piece))) for size in sizes])
        assert cost[1] < 4 * 3 * cost[0], around


def test_many_labels_that_differ_in_each_row_cost_in_proportion_to_the_answer() -> None:
    def answer(rows: int) -> str:
        return "".join(
            'DCGM_x{gpu="0",UUID="GPU-1",' + ",".join(f'l{row}_{n}="{row}"' for n in range(50)) + f"}} {row}\n"
            for row in range(rows)
        )

    cost = cost_of(lambda body: Exposition("h").read(body, 1_752_871_354_000_000_000), [answer(100), answer(800)])
    assert cost[1] < 8 * 2.5 * cost[0]
