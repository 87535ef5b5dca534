"""The condition of a rule in one line of words and numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from health.rules.model import Level, Rule
from readings.times import SECOND, format_duration

_IDENTIFIER = re.compile(r"\b[a-z][a-z0-9_]*\b")


def condition_words(rule: Rule) -> str:
    """``warning when GPU_TEMP > 85 for 5m, until GPU_TEMP <= 83 for 3 samples; critical when …``.

    The numbers are those of GPUs without numbers of their own; those of some models follow. A rule that is judged in code has
    its numbers alone: what it does with them is in its ``finds``.
    """
    parts = [_level(level, rule.settings) for level in rule.levels] or [_numbers(rule.settings)]
    parts += [f"{model}: {_numbers(numbers)}" for model, numbers in rule.models.items()]
    if rule.latch:
        parts.append("ends by a person" if rule.latch == "person" else "ends by a reset or by a person")
    return "; ".join(part for part in parts if part)


def _level(level: Level, numbers: Mapping[str, float]) -> str:
    words = (
        f"{level.severity} when {_filled(level.when.text, numbers)}{_for(level.samples, level.for_ns, level.within_ns)}"
    )
    if level.until is not None:
        return f"{words}, until {_filled(level.until.text, numbers)}{_for(level.clear_samples, level.clear_ns)}"
    return f"{words}, until not so{_for(level.clear_samples, level.clear_ns)}"


def _filled(text: str, numbers: Mapping[str, float]) -> str:
    """The condition with the numbers in place of their names."""
    return _IDENTIFIER.sub(lambda match: f"{numbers[match[0]]:g}" if match[0] in numbers else match[0], text)


def _for(samples: int, time_ns: int, within_ns: int = 0) -> str:
    held = [f"{samples} samples"] * (samples > 1) + [format_duration(time_ns)] * (time_ns > 0)
    within = f" within {format_duration(within_ns)}" if within_ns else ""
    return f" for {' and '.join(held)}{within}" if held else ""


def _numbers(numbers: Mapping[str, float]) -> str:
    """``samples 3, after 2m``: names that end in _s are seconds."""
    return ", ".join(
        f"{_name(name)} {format_duration(round(number * SECOND)) if name.endswith('_s') else f'{number:g}'}"
        for name, number in numbers.items()
    )


def _name(name: str) -> str:
    return name.removesuffix("_s").replace("_", " ")
