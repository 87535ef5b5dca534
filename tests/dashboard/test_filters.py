"""dashboard.templatetags.dashboard: values, times and names in templates."""

from __future__ import annotations

import time

import pytest

from dashboard.templatetags.dashboard import age, gpu_url, host_short, host_url, number, short_id, value, when
from readings.times import SECOND, parse_time


@pytest.mark.parametrize(
    ("amount", "unit", "shown"),
    [
        (64997.681, "W", "65.0 kW"),
        (9000.0, "W", "9,000 W"),
        (689.457, "W", "689.5 W"),
        (6550002.0, "MiB", "6.25 TiB"),
        (81007.0, "MiB", "79.1 GiB"),
        (0.0, "%", "0 %"),
        (43.781, "%", "43.8 %"),
    ],
)
def test_a_value_has_the_unit_that_fits(amount: float, unit: str, shown: str) -> None:
    text = str(value(amount, unit))
    assert text.replace('<small class="unit">', "").replace("</small>", "") == shown


@pytest.mark.parametrize("unknown", [None, float("nan")])
def test_what_is_unknown_is_said_and_never_0(unknown: float | None) -> None:
    assert "n/a" in value(unknown, "W")
    assert "n/a" in number(unknown)


def test_short_ids_keep_what_people_say() -> None:
    assert short_id("GPU-39bd9cd5-1111-2222-3333-444455556666") == "39bd9cd5"
    assert short_id("GPU-39bd9cd5-1111-2222-3333-444455556666:3") == "39bd9cd5:3"
    assert short_id("card-7") == "card-7"


def test_host_names_lose_the_prefix_that_all_share() -> None:
    assert host_short("mtv5-dgx1-hgpu-012", "mtv5-dgx1-") == "hgpu-012"
    assert host_short("mtv5", "mtv5") == "mtv5"


def test_links_escape_any_name() -> None:
    assert host_url("a/b <c>%") == "/hosts/a%2Fb%20%3Cc%3E%25"
    assert gpu_url("GPU-1:3") == "/gpus/GPU-1:3"


def test_times_are_utc_and_ages_are_short() -> None:
    assert when(parse_time("2025-07-18T20:42:37.25Z")) == (
        '<time datetime="2025-07-18T20:42:37.25Z">2025-07-18 20:42:37</time>'
    )
    now = time.time_ns()
    assert [age(now - seconds * SECOND - SECOND // 2) for seconds in (12, 240, 3 * 3600, 2 * 86400)] == [
        "12 s",
        "4 m",
        "3 h",
        "2 d",
    ]
    assert "n/a" in age(None)
