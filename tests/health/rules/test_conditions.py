"""Conditions: what they mean, checked against a reckoning of single numbers, and what they refuse."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from health.rules.conditions import (
    FUNCTIONS,
    MAX_TEXT,
    REPLAYS_PER_LANE,
    Condition,
    View,
    compile_condition,
    replay_limits,
    short_name,
)
from health.rules.errors import RulesError
from tests.health.rules.views import NAN, PlainView

TEMP, UTIL, REASONS = "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_CLOCKS_EVENT_REASONS"
REPLAYS, DBE = "DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"


def answers(condition: Condition, view: View) -> list[bool | None]:
    """True, False or None (unknown) for each point."""
    is_true, is_false = condition.judge(view)
    assert is_true.dtype == is_false.dtype == np.bool_
    assert not (is_true & is_false).any()
    return [True if yes else False if no else None for yes, no in zip(is_true, is_false, strict=True)]


# A reckoning of one point in plain Python. None is unknown.

Scalar = float | None
NUMBERS = {"GPU_TEMP": TEMP, "GPU_UTIL": UTIL, "MEMORY_TEMP": "DCGM_FI_DEV_MEMORY_TEMP"}
SETTINGS = {"limit": 85.0, "share": 0.5, "nothing": 0.0}
LITERALS = (0.0, 1.0, 2.5, 85.0, 1e6)
Point = dict[str, float]
Reckon = Callable[[Point], Any]


def _leaf(text: str, get: Reckon) -> tuple[str, Reckon]:
    return text, get


def _arithmetic(symbol: str, left: Reckon, right: Reckon) -> Reckon:
    combine = {"+": operator.add, "-": operator.sub, "*": operator.mul}.get(symbol)

    def reckon(point: Point) -> Scalar:
        first, second = left(point), right(point)
        if first is None or second is None:
            return None
        if combine is None:
            return None if second == 0 else first / second
        return float(combine(first, second))

    return reckon


NUMBER_LEAVES = st.one_of(
    st.sampled_from(list(NUMBERS)).map(lambda name: _leaf(name, lambda p: None if math.isnan(p[name]) else p[name])),
    st.sampled_from(list(SETTINGS)).map(lambda name: _leaf(name, lambda p: SETTINGS[name])),
    st.sampled_from(LITERALS).map(lambda number: _leaf(f"{number:g}", lambda p: number)),
)
NUMBER_TREES = st.recursive(
    NUMBER_LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(
            lambda t: (f"({t[0][0]} {t[1]} {t[2][0]})", _arithmetic(t[1], t[0][1], t[2][1]))
        ),
        inner.map(lambda t: (f"-{t[0]}", lambda p: None if t[1](p) is None else -t[1](p))),
    ),
    max_leaves=4,
)
COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


def _compare(left: Reckon, symbol: str, right: Reckon) -> Reckon:
    def reckon(point: Point) -> bool | None:
        first, second = left(point), right(point)
        return None if first is None or second is None else bool(COMPARE[symbol](first, second))

    return reckon


def _every(parts: list[Reckon]) -> Reckon:
    def reckon(point: Point) -> bool | None:
        found = [part(point) for part in parts]
        return False if False in found else None if None in found else True

    return reckon


def _negated(part: Reckon) -> Reckon:
    return lambda point: None if part(point) is None else not part(point)


def _some(parts: list[Reckon]) -> Reckon:
    return _negated(_every([_negated(part) for part in parts]))


TRUTH_LEAVES = st.one_of(
    st.tuples(NUMBER_TREES, st.sampled_from(list(COMPARE)), NUMBER_TREES).map(
        lambda t: (f"{t[0][0]} {t[1]} {t[2][0]}", _compare(t[0][1], t[1], t[2][1]))
    ),
    st.tuples(NUMBER_TREES, NUMBER_TREES, NUMBER_TREES).map(
        lambda t: (
            f"{t[0][0]} < {t[1][0]} <= {t[2][0]}",
            _every([_compare(t[0][1], "<", t[1][1]), _compare(t[1][1], "<=", t[2][1])]),
        )
    ),
    st.tuples(NUMBER_TREES, NUMBER_TREES, NUMBER_TREES).map(
        lambda t: (
            f"{t[0][0]} in ({t[1][0]}, {t[2][0]})",
            _some([_compare(t[0][1], "==", t[1][1]), _compare(t[0][1], "==", t[2][1])]),
        )
    ),
    st.sampled_from(list(NUMBERS)).map(lambda name: (f"known({name})", lambda p: not math.isnan(p[name]))),
    st.just(("held", lambda p: p["held"] > 0)),
    st.sampled_from([1, 4, 0xE8]).map(
        lambda mask: (
            f"bits(GPU_UTIL, {mask})",
            lambda p: None if math.isnan(p["GPU_UTIL"]) else bool(int(p["GPU_UTIL"]) & mask),
        )
    ),
)
TRUTH_TREES = st.recursive(
    TRUTH_LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda t: (f"({t[0][0]} {t[1]} {t[2][0]})", (_every if t[1] == "and" else _some)([t[0][1], t[2][1]]))
        ),
        inner.map(lambda t: (f"(not {t[0]})", _negated(t[1]))),
    ),
    max_leaves=5,
)
VALUES = st.sampled_from([NAN, 0.0, 1.0, 2.5, 8.0, 85.0, 96.0, 1e6])
POINTS = st.lists(
    st.fixed_dictionaries(dict.fromkeys(NUMBERS, VALUES) | {"held": st.sampled_from([0.0, 1.0])}),
    min_size=1,
    max_size=6,
)


@settings(max_examples=400, deadline=None)
@given(tree=TRUTH_TREES, points=POINTS)
def test_it_means_what_a_reckoning_of_single_numbers_says(tree: tuple[str, Reckon], points: list[Point]) -> None:
    text, reckon = tree
    text += " and (held or not held)"  # looks at something, and changes nothing
    if len(text) > MAX_TEXT:
        return
    view = PlainView(
        {full: [point[name] for point in points] for name, full in NUMBERS.items()},
        settings=SETTINGS,
        held=[point["held"] > 0 for point in points],
    )
    assert answers(compile_condition(text, SETTINGS), view) == [reckon(point) for point in points]


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="GPU_TEMPheld 0123456789.()<>=!&|+-*/,[]{}:'\"\\\n\0abno\tti∞", max_size=60))
def test_any_text_is_a_condition_or_refused_in_one_line(text: str) -> None:
    complaint = ""
    try:
        compile_condition(text, SETTINGS)
    except RulesError as error:
        complaint = str(error)
    assert "\n" not in complaint


def test_names_with_and_without_prefix_and_older_ones_are_the_same_metric() -> None:
    for name in ("SM_CLOCK", "DCGM_FI_DEV_SM_CLOCK"):
        assert compile_condition(f"{name} > 0").metrics == ("DCGM_FI_DEV_SM_CLOCK",)
    assert compile_condition("CLOCK_THROTTLE_REASONS > 0").metrics == (REASONS,)
    assert compile_condition("GR_ENGINE_ACTIVE == 0").metrics == ("DCGM_FI_PROF_GR_ENGINE_ACTIVE",)
    assert compile_condition("XID_ERRORS_COUNT > 0").metrics == ("DCGM_EXP_XID_ERRORS_COUNT",)
    assert short_name("DCGM_EXP_XID_ERRORS_COUNT") == "XID_ERRORS_COUNT"
    assert short_name("MINE") == "MINE"


def test_growth_and_rates() -> None:
    view = PlainView(
        {REPLAYS: [10, 20, 30, 40]},
        increase={REPLAYS: [NAN, 10, 10, 10]},
        seconds={REPLAYS: [NAN, 10, 30, 0]},
        windowed={REPLAYS: [0, 2, 4, NAN]},
        age={REPLAYS: [0, 10, 400, NAN]},
    )
    assert answers(compile_condition("increase(PCIE_REPLAY_COUNTER) > 5"), view) == [None, True, True, True]
    assert answers(compile_condition("per_second(PCIE_REPLAY_COUNTER) >= 1"), view) == [None, True, False, None]
    assert answers(compile_condition("per_minute(PCIE_REPLAY_COUNTER) > 20"), view) == [None, True, False, None]
    hourly = compile_condition("per_hour(PCIE_REPLAY_COUNTER, span) > 10", {"span": 600.0})
    assert answers(hourly, view) == [False, True, True, None]  # 0, 12 and 24 an hour
    assert hourly.windows == ((REPLAYS, 600.0),)
    assert view.windows == [(REPLAYS, 600.0)]
    assert answers(compile_condition("growth(PCIE_REPLAY_COUNTER, 600) > 3"), view) == [False, False, True, None]
    assert answers(compile_condition("age(PCIE_REPLAY_COUNTER) > 300"), view) == [False, False, True, None]


def test_the_limit_of_replays_is_dcgms() -> None:
    generations = np.array([4, 5, 3, 1, 6, NAN, 4, 7, 2, 0], np.float64)
    widths = np.array([16, 16, 8, 16, 16, 16, NAN, 16, 4, 16], np.float64)
    assert replay_limits(generations, widths).tolist() == [16, 31, 4, 3, 62, 31, 31, 31, 2, 31]
    for generation, share in REPLAYS_PER_LANE.items():
        for lanes in (1, 2, 4, 8, 16):
            limit = replay_limits(np.array([float(generation)]), np.array([float(lanes)]))
            assert limit.tolist() == [math.ceil(round(share * lanes, 6))]


def test_an_unknown_link_leaves_a_limit() -> None:
    condition = compile_condition("per_minute(PCIE_REPLAY_COUNTER) > replay_limit(PCIE_LINK_GEN, PCIE_LINK_WIDTH)")
    view = PlainView(
        {REPLAYS: [0, 0], "DCGM_FI_DEV_PCIE_LINK_GEN": [NAN, 4], "DCGM_FI_DEV_PCIE_LINK_WIDTH": [NAN, 16]},
        increase={REPLAYS: [4, 4]},
        seconds={REPLAYS: [10, 10]},
    )
    assert answers(condition, view) == [False, True]
    assert condition.metrics == (REPLAYS, "DCGM_FI_DEV_PCIE_LINK_GEN", "DCGM_FI_DEV_PCIE_LINK_WIDTH")


def test_numbers_of_a_rule_may_differ_by_gpu() -> None:
    condition = compile_condition("GPU_TEMP > limit and bits(CLOCKS_EVENT_REASONS, mask)", {"limit": 85.0, "mask": 8.0})
    view = PlainView({TEMP: [80, 80], REASONS: [8, 8]}, settings={"limit": [85, 75], "mask": [8, 8]})
    assert answers(condition, view) == [False, True]
    assert condition.settings == ("limit", "mask")


def test_the_fleet_of_the_same_model_can_be_asked() -> None:
    clock = "DCGM_FI_DEV_SM_CLOCK"
    condition = compile_condition("SM_CLOCK < 0.6 * model_median(SM_CLOCK) or SM_CLOCK > model_p90(SM_CLOCK)")
    view = PlainView(
        {clock: [1000, 1000, 2000]}, model_median={clock: [1980, NAN, 1980]}, model_p90={clock: [1990, NAN, 1990]}
    )
    assert answers(condition, view) == [True, None, True]
    assert condition.functions == (("value", clock), ("model_median", clock), ("model_p90", clock))


def test_parts_and_what_is_known_of_the_fleet() -> None:
    state = "DCGM_FI_DEV_NVLINK_GET_STATE"
    condition = compile_condition(
        "lowest(NVLINK_GET_STATE) < 1 and (NVLINK_GET_STATE > 0 or known(model_median(NVLINK_GET_STATE) / 0))"
    )
    view = PlainView({state: [1, 0, 1, NAN]}, lowest={state: [0, 0, 1, NAN]}, model_median={state: [1, 1, 1, 1]})
    assert answers(condition, view) == [True, False, False, None]


def test_a_bitmask_that_no_number_of_bits_is_is_unknown() -> None:
    view = PlainView({REASONS: [0x88, 4, NAN, -1, 1e300, float("inf")]})
    assert answers(compile_condition("bits(CLOCKS_EVENT_REASONS, 0xE8)"), view) == [True, False, None, None, None, None]


def test_the_figures_behind_a_condition() -> None:
    condition = compile_condition("GPU_TEMP > limit - 2 and GPU_UTIL > 5", {"limit": 85.0})
    view = PlainView({TEMP: [80, 91], UTIL: [50, NAN]}, settings={"limit": [85, 95]})
    assert condition.figures(view, 1) == {"value": 91, "limit": 95, "GPU_TEMP": 91}
    assert compile_condition("GPU_TEMP > 85").figures(view, 0) == {"value": 80, "limit": 85, "GPU_TEMP": 80}
    masks = PlainView({REASONS: [0x80]})
    assert compile_condition("bits(CLOCKS_EVENT_REASONS, 0xE8)").figures(masks, 0) == {
        "value": 0x80, "limit": 0xE8, "CLOCKS_EVENT_REASONS": 0x80,
    }  # fmt: skip
    assert compile_condition("GPU_TEMP / 0 > 1").figures(view, 0) == {"limit": 1, "GPU_TEMP": 80}


def test_conditions_of_the_same_text_are_equal() -> None:
    assert compile_condition("GPU_TEMP > 1") == compile_condition(" GPU_TEMP  >\n1 ")
    assert compile_condition("GPU_TEMP > 1") != compile_condition("GPU_TEMP > 2")
    assert len({compile_condition("GPU_TEMP > 1"), compile_condition("GPU_TEMP > 1")}) == 1
    assert repr(compile_condition("GPU_TEMP > 1")) == "Condition('GPU_TEMP > 1')"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "empty"),
        ("1 > 0", "looks at no metric"),
        ("GPU_TMEP > 85", 'at 1: no metric or setting GPU_TMEP; did you mean GPU_TEMP? (settings here: limit, held;'),
        ("GPU_TEMP > limt", "at 12: no metric or setting limt; did you mean limit?"),
        ("GPU_TEMP", "GPU_TEMP is a number: compare it"),
        ("GPU_TEMP and held", "at 1: GPU_TEMP is a number"),
        ("held > 1", "held is true or false"),
        ("GPU_TEMP + (GPU_UTIL > 1) > 3", "at 13: GPU_UTIL > 1 is true or false where a number is needed"),
        ("known(GPU_TEMP) > 1", "known is true or false"),
        ("GPU_TEMP >", "at 11: invalid syntax"),
        ("GPU_TEMP = 85", "invalid syntax"),
        ("GPU_TEMP is 85", "compare with one of < <= > >= == != in"),
        ("GPU_TEMP ** 2 > 1", "reckon with + - * / only"),
        ("GPU_TEMP % 2 > 1", "reckon with + - * / only"),
        ("~GPU_TEMP > 1", "not part of the language"),
        ("GPU_TEMP > '85'", "'85' is no number"),
        ("GPU_TEMP > True", "True is no number"),
        ("GPU_TEMP > 1e999", "is no number"),
        (f"GPU_TEMP > 1{'0' * 400}", "is no number"),
        ("GPU_TEMP in 1", "after in comes a list of numbers"),
        ("GPU_TEMP in ()", "after in comes a list of numbers"),
        ("rate(GPU_TEMP) > 1", "no function rate; there are increase,"),
        ("increase(1) > 1", "no metric or setting 1"),
        ("increase() > 1", "write increase(METRIC)"),
        ("increase(GPU_TEMP, 5) > 1", "write increase(METRIC)"),
        ("increase(x=GPU_TEMP) > 1", "write increase(METRIC)"),
        ("increase(limit) > 1", "no metric or setting limit"),
        ("per_hour(GPU_TEMP, 1) > 1", "the window is a number of seconds or a setting, from 60 to 604800"),
        ("per_hour(GPU_TEMP, GPU_UTIL) > 1", "the window is a number"),
        ("bits(GPU_TEMP, 0)", "a mask is a whole number above 0"),
        ("bits(GPU_TEMP, 1.5)", "a mask is a whole number above 0"),
        ("__import__('os').system('id') > 1", "no such function"),
        ("GPU_TEMP.real > 1", "GPU_TEMP.real is not part of the language"),
        ("(lambda: 1)() > 1", "no such function"),
        ("[x for x in held] > 1", "not part of the language"),
        ("GPU_TEMP > 1 if held else 0", "not part of the language"),
        ("GPU_TEMP > 1\0", "characters that cannot be printed"),
        ("GPU_TEMP > " + "(" * 240 + "1" + ")" * 240, "too many nested parentheses"),
        ("GPU_TEMP > 1 and " * 40 + "held", f"at most {MAX_TEXT} are allowed"),
        ("gpu_temp > 1", "no metric or setting gpu_temp"),
    ],
)  # fmt: skip
def test_what_is_refused_and_what_is_said(text: str, complaint: str) -> None:
    with pytest.raises(RulesError) as caught:
        compile_condition(text, {"limit": 85.0})
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_function_can_be_used_as_it_is_written() -> None:
    for function in FUNCTIONS.values():
        call = (
            function.usage.replace("METRIC", "GPU_TEMP")
            .replace("number", "GPU_TEMP")
            .replace("seconds", "600")
            .replace("mask", "8")
        )
        comparison = "" if call.startswith(("bits", "known")) else " > 1"
        assert TEMP in compile_condition(call + comparison).metrics
