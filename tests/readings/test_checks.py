from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readings import checks
from readings.catalogue import CATALOGUE
from readings.checks import (
    MAX_AHEAD_NS,
    PASSED_OVER,
    REASONS,
    REMARKS,
    Kinds,
    Refusal,
    Refusals,
    Refused,
    check_block,
    check_metric_name,
    known_reasons,
    parse_value,
    problem_of,
)
from readings.model import Gpu, Point, PointBlock

NOW = 1_752_871_354_000_000_000
UTIL, TEMP, POWER = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE"
ENERGY, REPLAYS, OWN = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "my_own_metric"
GPU = Gpu(uuid="GPU-1", hostname="node")


def block(names: list[str], *points: Point) -> PointBlock:
    return PointBlock([GPU], names, list(points))


def checked(names: list[str], *points: Point, oldest: int | None = None) -> tuple[PointBlock, list[Refusal]]:
    return check_block(block(names, *points), now_ns=NOW, oldest_ns=oldest)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("66.781", 66.781),
        ("345.000000", 345),
        (" 12 ", 12),
        ("-1", -1),
        ("+5", 5),
        ("1e3", 1000),
        (".5", 0.5),
        ("2147483631", 2147483631),
        ("2147483636", 2147483636),
        ("9007199254740992", 2.0**53),
        ("4294967295", 4294967295),
    ],
)
def test_decimal_numbers_are_read(text: str, value: float) -> None:
    assert parse_value(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("9223372036854775792", "blank"),
        ("9223372036854775793", "blank"),
        ("9223372036854775794", "blank"),
        ("9223372036854775795", "blank"),
        ("9223372036854776000", "blank"),
        ("9.223372036854776e+18", "blank"),
        ("2147483632", "blank"),
        ("2147483633", "blank"),
        ("2147483634", "blank"),
        ("2147483635", "blank"),
        ("140737488355328.0", "blank"),
        ("140737488355330.000000", "blank"),
        ("140737488355331", "blank"),
        ("<<<NULL>>>", "blank"),
        ("<<<NOT_SUPPORTED>>>", "not_supported"),
        ("N/A", "not_available"),
        ("[N/A]", "not_supported"),
        ("[Not Supported]", "not_supported"),
        ("[Unknown Error]", "not_available"),
        ("-", "not_available"),
        ("", "not_available"),
        ("  ", "not_available"),
        ("ERROR - FAILED TO CONVERT TO STRING", "not_supported"),
        ("ERROR", "not_available"),
        ("nan", "non_finite"),
        ("+Inf", "non_finite"),
        ("-Infinity", "non_finite"),
        ("1e400", "non_finite"),
        ("1_000", "bad_number"),
        ("１２", "bad_number"),
        ("0x10", "bad_number"),
        ("1,5", "bad_number"),
        ("12 W", "bad_number"),
        ("twelve", "bad_number"),
    ],
)
def test_what_is_no_measurement_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_value(text)
    assert caught.value.reason == reason
    assert repr(text.strip()) in caught.value.detail
    assert reason in REASONS or reason in PASSED_OVER


def test_a_long_text_is_shown_cut() -> None:
    with pytest.raises(Refused) as caught:
        parse_value("x" * 10_000)
    assert len(caught.value.detail) < 120


@given(st.floats(min_value=-1e15, max_value=1e15))
def test_any_number_that_is_no_blank_is_read_as_it_was_written(value: float) -> None:
    if problem_of(OWN, value) is None:
        assert parse_value(repr(value)) == value


@given(st.text(max_size=20))
def test_any_text_is_a_finite_number_or_refused(text: str) -> None:
    try:
        value = parse_value(text)
    except Refused:
        return
    assert math.isfinite(value)


@pytest.mark.parametrize(
    ("name", "value"), [(UTIL, 2619), (UTIL, 1980), (UTIL, 4294967295), (UTIL, -1), (TEMP, 345), (TEMP, 82505)]
)
def test_a_spike_is_refused_and_the_rest_of_its_point_stays(name: str, value: float) -> None:
    good, refusals = checked([name, POWER], (0, NOW, [value, 66.781]))
    assert good.points == [(0, NOW, [None, 66.781])]
    detail = f"GPU-1 {name} = {value!r} at 2025-07-18T20:42:34Z"
    assert refusals == [Refusal("out_of_range", detail, block([name], (0, NOW, [value])))]


def test_a_good_block_is_returned_itself() -> None:
    given_block = block([UTIL, TEMP, OWN], (0, NOW, [0.0, 31.0, -5.5]), (0, NOW - 1, [None, None, 1e18]))
    good, refusals = check_block(given_block, now_ns=NOW, oldest_ns=NOW - 1)
    assert good is given_block
    assert refusals == []


def test_the_block_given_is_not_changed() -> None:
    values: list[float | None] = [5.0, 300.0]
    given_block = block([UTIL, TEMP], (0, NOW, values))
    check_block(given_block, now_ns=NOW, oldest_ns=None)
    assert given_block.points == [(0, NOW, [5.0, 300.0])]
    assert values == [5.0, 300.0]


@pytest.mark.parametrize("points", [[], [(0, NOW, [])], [(0, NOW, [None])]])
def test_a_block_without_readings_is_good(points: list[Point]) -> None:
    given_block = block([UTIL] if points and points[0][2] else [], *points)
    assert check_block(given_block, now_ns=NOW, oldest_ns=None) == (given_block, [])


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (REPLAYS, 2147483634.0, "blank"),
        (REPLAYS, 2147483631.0, None),
        (REPLAYS, 2147483636.0, None),
        (REPLAYS, 4294967297.0, "out_of_range"),
        ("DCGM_FI_PROF_SM_ACTIVE", 140737488355330.0, "blank"),
        ("DCGM_FI_PROF_SM_ACTIVE", 1.294, None),
        ("DCGM_FI_PROF_PIPE_FP16_ACTIVE", 2.0, None),
        ("DCGM_FI_PROF_SM_ACTIVE", 2.01, "out_of_range"),
        ("DCGM_FI_DEV_POWER_USAGE", 3600.0, None),
        ("DCGM_FI_DEV_FB_TOTAL", 1_048_577.0, None),
        ("DCGM_FI_DEV_FB_USED", 85_520_809_984.0, "out_of_range"),
        ("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", 4294967297.0, None),
        (ENERGY, 9.1e11, None),
        (ENERGY, 2.0**63, "blank"),
        (OWN, 2.0**63, "blank"),
        (OWN, 140737488355328.0, "blank"),
        (OWN, -7.0, None),
        (OWN, float("nan"), "non_finite"),
        (UTIL, float("nan"), "non_finite"),
        (OWN, float("-inf"), "non_finite"),
        ("DCGM_FI_DEV_MEMORY_TEMP", 0.0, "not_supported"),
        ("DCGM_FI_DEV_MEMORY_TEMP", 0.5, "out_of_range"),
        ("DCGM_FI_DEV_XID_ERRORS", 79.0, None),
        ("DCGM_FI_DEV_POWER_VIOLATION", 1e15, None),
        ("DCGM_FI_DEV_POWER_VIOLATION", -1.0, "out_of_range"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_bad_value_is_found_wherever_it_stands(name: str, value: float, reason: str | None, place: int) -> None:
    values: list[float | None] = [1.0, 1.0, 1.0]
    values[place] = value
    good, refusals = checked([name], *((0, NOW, [value]) for value in values))
    assert [refusal.reason for refusal in refusals] == ([reason] if reason else [])
    assert good.count() == 3 - len(refusals)


def test_a_sum_that_overflows_refuses_nothing() -> None:
    given_block = block([OWN], (0, NOW, [1.7e308]), (0, NOW, [1.7e308]))
    # Beyond 9.2e18 all is taken for a blank, so only large negative numbers can get here.
    given_block.points = [(0, NOW, [-1.7e308]), (0, NOW - 1, [-1.7e308])]
    assert check_block(given_block, now_ns=NOW, oldest_ns=None) == (given_block, [])


@pytest.mark.parametrize(
    ("time_ns", "oldest", "reason"),
    [
        (NOW + MAX_AHEAD_NS, None, None),
        (NOW + MAX_AHEAD_NS + 1, None, "future"),
        (NOW + 7200 * 10**9, NOW - 1, "future"),
        (NOW - 10, NOW - 10, None),
        (NOW - 11, NOW - 10, "too_old"),
        (0, None, None),
        (0, 1, "too_old"),
        (-1, None, "bad_timestamp"),
        (-1, NOW, "bad_timestamp"),
        (1 << 70, None, "future"),
    ],
)
def test_every_reading_of_a_point_out_of_time_is_refused(time_ns: int, oldest: int | None, reason: str | None) -> None:
    good, refusals = checked(
        [UTIL, TEMP, OWN], (0, time_ns, [1.0, None, 2.0]), (0, NOW, [1.0, 2.0, 3.0]), oldest=oldest
    )
    assert [refusal.reason for refusal in refusals] == ([reason] * 2 if reason else [])
    assert (0, NOW, [1.0, 2.0, 3.0]) in good.points
    assert len(good.points) == (1 if reason else 2)


def test_a_point_of_which_nothing_is_left_goes() -> None:
    good, refusals = checked([UTIL, TEMP], (0, NOW, [None, 345.0]), (0, NOW, [101.0, -1.0]))
    assert good.points == []
    assert len(refusals) == 3


names = st.sampled_from([UTIL, TEMP, ENERGY, REPLAYS, OWN, "DCGM_FI_PROF_SM_ACTIVE", "DCGM_FI_DEV_POWER_VIOLATION"])
numbers = st.none() | st.sampled_from([0.0, 1.0, 2147483634.0, 140737488355329.0, 2.0**63, 1e12, -1.0]) | st.floats()


@given(st.data(), st.lists(names, unique=True, min_size=1, max_size=4))
def test_the_fast_road_and_the_slow_one_agree(data: st.DataObject, metric_names: list[str]) -> None:
    row = st.lists(numbers, min_size=len(metric_names), max_size=len(metric_names))
    rows = data.draw(st.lists(row, max_size=4))
    given_block = block(metric_names, *((0, NOW, values) for values in rows))
    good, refusals = check_block(given_block, now_ns=NOW, oldest_ns=None)
    expected = [
        reason
        for values in rows
        for name, value in zip(metric_names, values, strict=True)
        if value is not None and (reason := problem_of(name, value)) is not None
    ]
    assert [refusal.reason for refusal in refusals] == expected
    assert good.count() == given_block.count() - len(expected)
    if not expected:
        assert good is given_block


def test_every_bound_of_the_catalogue_is_itself_allowed() -> None:
    for metric in CATALOGUE.values():
        for bound in (metric.low, metric.high):
            assert bound is None or problem_of(metric.name, float(bound)) is None


def test_metric_names_are_folded_and_bounded() -> None:
    assert check_metric_name("dcgm_gpu_temp ") == TEMP
    assert check_metric_name("m" * 255) == "m" * 255
    for bad, reason in ((" ", "no_metric"), ("m" * 256, "bad_field"), ("a\0b", "bad_field"), ("a\ufffdb", "bad_field")):
        with pytest.raises(Refused) as caught:
            check_metric_name(bad)
        assert caught.value.reason == reason


def test_every_reason_is_explained() -> None:
    constants = {value for name, value in vars(checks).items() if name.isupper() and isinstance(value, str)}
    assert constants == {*REASONS, *REMARKS, *PASSED_OVER}
    assert all((*REASONS.values(), *REMARKS.values(), *PASSED_OVER.values()))
    assert len(constants) == len(REASONS) + len(REMARKS) + len(PASSED_OVER)


def test_counts_are_of_three_kinds_and_an_unknown_reason_is_one_of_refusals() -> None:
    assert Kinds.of({"blank": 1, "bad_label": 2, "not_supported": 3, "made up": 4}) == (
        {"blank": 1, "made up": 4},
        {"bad_label": 2},
        {"not_supported": 3},
    )


def test_of_many_refused_readings_all_are_counted_and_the_first_kept() -> None:
    wide = [f"metric{n}" for n in range(500)]
    late = block(wide, *((0, NOW - 1, [1.0, None] * 250) for _ in range(20)))
    _, refusals = check_block(late, now_ns=NOW, oldest_ns=NOW)
    assert refusals.counts == {"too_old": 5000}
    assert len(refusals) == Refusals.MOST
    mixed = block(wide, *((0, NOW, [float("inf"), 1e19, 1.0, None, 5.0] * 100) for _ in range(20)))
    good, refusals = check_block(mixed, now_ns=NOW, oldest_ns=NOW)
    assert (refusals.counts, good.count()) == ({"non_finite": 2000, "blank": 2000}, 4000)
    assert len(refusals) == Refusals.MOST
    assert all(refusal.block is not None and refusal.block.gpus[0] is mixed.gpus[0] for refusal in refusals)
    assert Refusal("blank", "") not in refusals
    more = Refusals()
    more.refuse(Refusal("blank", "one"), 3)
    more.merge(refusals)
    assert more.counts == {"non_finite": 2000, "blank": 2003}
    assert more[:4] == [*[Refusal("blank", "one")] * 3, refusals[0]]
    assert len(more) == Refusals.MOST


def test_reasons_that_clients_invent_are_one() -> None:
    invented = {f"reason {n}": 2 for n in range(60)}
    assert known_reasons({"blank": 1, "not_a_gpu": 5, **invented}) == {"blank": 1, "not_a_gpu": 5, "other": 120}
    assert known_reasons({"blank": 1, "spool_full": 3}) == {"blank": 1, "spool_full": 3}


def test_a_refused_reading_says_why_in_one_line() -> None:
    refused = Refused(checks.OUT_OF_RANGE, "GPU-1 utilisation = 2619")
    assert str(refused) == "out_of_range: GPU-1 utilisation = 2619"
    assert refused.refusal == Refusal("out_of_range", "GPU-1 utilisation = 2619")
