"""dashboard.fleet_rows: rows of the fleet for tables."""

from __future__ import annotations

import numpy as np
import pytest

from dashboard.fleet_rows import choices, chosen, codes, given, group_median, order_of, ordered, place
from inventory.fleet import fleet_now
from tests.inventory.building import UTIL, block, gpu, save


@pytest.mark.django_db
def test_filters_choose_rows_and_a_value_that_is_gone_stays() -> None:
    save(
        block(gpu("GPU-a", hostname="n1", namespace="research", pod="p"), 0, {UTIL: 1.0}),
        block(gpu("GPU-b", hostname="n2", model_name="A100"), 0, {UTIL: 2.0}),
    )
    fleet = fleet_now()
    assert [fleet.ids[row] for row in np.flatnonzero(chosen(fleet, {"namespace": "research"}))] == ["GPU-a"]
    assert [fleet.ids[row] for row in np.flatnonzero(chosen(fleet, {"model": "A100", "hostname": ""}))] == ["GPU-b"]
    assert not chosen(fleet, {"hostname": "n3"}).any()
    assert chosen(fleet, {}).all()
    assert place(fleet, 1) == ("n2", 0, "GPU-b")
    by_name = {choice.name: choice for choice in choices(fleet, {"hostname": "n3"})}
    assert (by_name["hostname"].value, by_name["hostname"].options) == ("n3", ["n1", "n2", "n3"])
    assert by_name["namespace"].options == ["research"]


def test_an_empty_filter_is_none() -> None:
    assert given({"model": ""}, "model") == given({}, "model") == ()
    assert given({"model": "x"}, "model") == ("x",)


def test_the_order_that_a_url_asks_for() -> None:
    assert order_of("-watts", "-util", ("watts", "util")) == ("watts", True)
    assert order_of("watts", "-util", ("watts", "util")) == ("watts", False)
    assert order_of("nonsense", "-util", ("watts", "util")) == ("util", True)


@pytest.mark.parametrize(("descending", "expected"), [(True, [2, 0, 3, 1]), (False, [0, 3, 2, 1])])
def test_the_unknown_comes_last_in_either_order(descending: bool, expected: list[int]) -> None:
    values = np.array([1.0, np.nan, 5.0, 1.0])
    assert ordered(np.arange(4), values, descending=descending).tolist() == expected


def test_medians_of_groups_leave_out_the_unknown() -> None:
    names, numbers = codes(["b", "a", "b", "b", "c"])
    assert (names, numbers.tolist()) == (["a", "b", "c"], [1, 0, 1, 1, 2])
    found = group_median(np.array([1.0, 7.0, 5.0, np.nan, np.nan]), numbers)
    assert found[:4].tolist() == [3.0, 7.0, 3.0, 3.0]
    assert np.isnan(found[4])
