"""readings.clock_events: the bits of the clock event reasons."""

from __future__ import annotations

import pytest

from readings.catalogue import CATALOGUE
from readings.clock_events import CLOCK_EVENT_BITS, CLOCK_EVENTS, FAULT_BITS, Meaning, clock_events, is_throttled


def test_the_metric_and_its_bits_are_those_of_the_catalogue() -> None:
    description = CATALOGUE[CLOCK_EVENTS].description
    assert [event.bit for event in CLOCK_EVENT_BITS] == [1 << place for place in range(9)]
    assert all(f"{event.bit:#x} " in description for event in CLOCK_EVENT_BITS)


def test_heat_and_lack_of_power_are_faults_and_nothing_else_is() -> None:
    assert FAULT_BITS == 0xE8
    assert [event.name for event in CLOCK_EVENT_BITS if event.meaning is Meaning.LIMIT] == ["power cap"]


@pytest.mark.parametrize(
    ("mask", "names", "throttled"),
    [
        (0.0, [], False),
        (1.0, ["idle"], False),
        (6.0, ["application clocks", "power cap"], False),
        (72.0, ["hardware slowdown", "thermal, hardware"], True),
        (128.0, ["power brake"], True),
        (4096.0, [], False),
    ],
)
def test_a_mask_in_words(mask: float, names: list[str], throttled: bool) -> None:
    assert [event.name for event in clock_events(mask)] == names
    assert is_throttled(mask) is throttled
