"""The tables of docs/health.md, made of the rules. ``python -m tests.health.rules.health_page`` writes them anew."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from api.rule_words import condition_words
from health.rules.conditions import FUNCTIONS
from health.rules.loading import load_rules
from health.rules.model import Rule, Rules

PAGE = Path(__file__).resolve().parents[3] / "docs" / "health.md"


def page_now(text: str) -> str:
    """The page with its tables as the rules are."""
    rules = load_rules()
    tables = {
        "rules": rule_lines(rules),
        "xids": xid_lines(rules),
        "disagree": disagreements(rules),
        "functions": function_lines(),
    }
    for name, lines in tables.items():
        before, start, rest = text.partition(f"<!-- {name}: written by tests/health/rules/health_page.py -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        text = "".join((before, start, "\n", *(f"{line}\n" for line in lines), "\n", end, after))
    return re.sub(r"has \S+ codes", f"has {len(rules.xids)} codes", text)


def rule_lines(rules: Rules) -> list[str]:
    """A table of the rules."""
    return [
        "| rule | looks at | opens | what to do |",
        "| --- | --- | --- | --- |",
        *(
            f"| `{rule.name}`{_marks(rule)} | {rule.finds} | {_cell(condition_words(rule))} | {rule.action_text} |"
            for rule in rules.values()
        ),
    ]


def _marks(rule: Rule) -> str:
    marks = [rule.severity, *["stored only"] * (rule.quiet and rule.severity != "info"), *["ours"] * rule.inferred]
    return f" ({', '.join(marks)})"


def _cell(words: str) -> str:
    return words.replace("|", "\\|") or "–"


def xid_lines(rules: Rules) -> list[str]:
    """The XIDs by what they are to us."""
    kinds = {
        "fatal": "critical, `xid_fatal`",
        "warning": "warning, `xid_warning`",
        "nvlink5": "warning, or critical when the driver asks for a recovery within five minutes: `xid_nvlink5`",
        "app": "info, `xid_app`",
    }
    codes: dict[str, list[int]] = defaultdict(list)
    for xid in rules.xids.values():
        codes[xid.kind].append(xid.code)
    repeats = [xid.code for xid in rules.xids.values() if xid.repeats_warn]
    return [
        "| severity, rule | XIDs |",
        "| --- | --- |",
        *(f"| {words} | {_spans(codes[kind])} |" for kind, words in kinds.items()),
        f"| of these a warning when one GPU has it twice within a day | {_spans(repeats)} |",
    ]


def _spans(codes: list[int]) -> str:
    """``8, 70–72, 75``."""
    spans: list[list[int]] = []
    for code in sorted(codes):
        if spans and code == spans[-1][-1] + 1:
            spans[-1].append(code)
        else:
            spans.append([code])
    return ", ".join(f"{span[0]}–{span[-1]}" if len(span) > 2 else ", ".join(map(str, span)) for span in spans)


def disagreements(rules: Rules) -> list[str]:
    """A list of the XIDs about which sources disagree."""
    by_text: dict[str, list[int]] = defaultdict(list)
    for xid in rules.xids.values():
        if xid.disagree:
            by_text[xid.disagree].append(xid.code)
    return [f"- {_spans(codes)}: {text}" for text, codes in by_text.items()]


def function_lines() -> list[str]:
    """A table of the language's functions."""
    return [
        "| function | gives |",
        "| --- | --- |",
        *(f"| `{each.usage}` | {each.gives} |" for each in FUNCTIONS.values()),
    ]


if __name__ == "__main__":
    PAGE.write_text(page_now(PAGE.read_text()))
