"""dashboard.views.hot: temperature and throttling."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from dashboard.views import hot
from dashboard.views.hot import HOT_CELSIUS, LEAST_FOR_FIT, MARGIN, SLOWDOWN, hot_times, unexplained
from inventory.fleet import fleet_now
from readings.clock_events import CLOCK_EVENTS
from readings.model import Gpu, PointBlock
from readings.times import SECOND, format_time
from stores.base import GroupSeries, Store, StoreUnavailable
from tests.api.conftest import save as save_all
from tests.dashboard.reading import html
from tests.inventory.building import POWER, T0, TEMP, UTIL, block, fleet, gpu, save

pytestmark = pytest.mark.django_db
MINUTE = 60 * SECOND


def in_order(text: str, *parts: str) -> bool:
    places = [text.index(part) for part in parts]
    return all(before < after for before, after in pairwise(places))


def rack(*temperatures: float, **more: float) -> None:
    """GPUs of one host, GPU-0 … with these temperatures."""
    for number, celsius in enumerate(temperatures):
        save(block(gpu(f"GPU-{number}", gpu_id=number), 0, {TEMP: celsius, UTIL: 50.0, **more}))


def test_the_hottest_come_first_with_their_distance_to_the_median(client: Client) -> None:
    rack(40.0, 90.0, 60.0)
    body = html(client, "/hot")
    table = body[body.index("<tbody>") :]
    assert in_order(table, 'href="/gpus/GPU-1"', 'href="/gpus/GPU-2"', 'href="/gpus/GPU-0"')
    assert '+30 <small class="unit">°C' in table
    assert '−20 <small class="unit">°C' in table
    assert "1 <small>GPU</small>" in body  # above 85 °C
    assert "host-1 · gpu 1 · GPU-1" in table


def test_another_order_and_a_filter(client: Client) -> None:
    rack(40.0, 90.0, 60.0)
    save(block(gpu("GPU-9", hostname="host-2"), 0, {TEMP: 20.0}))
    body = html(client, "/hot?sort=temperature&hostname=host-1")
    table = body[body.index("<tbody>") :]
    assert in_order(table, 'href="/gpus/GPU-0"', 'href="/gpus/GPU-2"', 'href="/gpus/GPU-1"')
    assert "GPU-9" not in table


def test_throttling_is_named_and_what_is_no_fault_is_none(client: Client) -> None:
    save(
        block(gpu("GPU-a"), 0, {TEMP: 88.0, CLOCK_EVENTS: 0x48}),
        block(gpu("GPU-b", gpu_id=1), 0, {TEMP: 30.0, CLOCK_EVENTS: 0x3}),
    )
    body = html(client, "/hot")
    assert "▲ hardware slowdown" in body
    assert "▲ thermal, hardware" in body
    assert "▲ idle" not in body
    assert "Nothing runs, so the clocks are low. No fault." in body
    assert "2 of 2 GPUs report them" in body
    only = html(client, "/hot?only=throttled")
    assert "/gpus/GPU-a" in only
    assert "/gpus/GPU-b" not in only[only.index('id="gpus"') : only.index('data-part="held"')]


def test_a_fleet_that_gives_no_reasons_is_told_what_to_add(client: Client) -> None:
    rack(40.0)
    body = html(client, "/hot?only=throttled")
    assert "dcgm-exporter -f health.csv" in body
    assert "throttling cannot be seen" in body


@pytest.mark.parametrize(
    ("values", "shown"), [({MARGIN: 12.0, SLOWDOWN: 99.0}, "12"), ({SLOWDOWN: 87.0}, "7"), ({}, "n/a")]
)
def test_the_margin_is_the_gpus_own_or_what_is_left_to_its_slowdown(
    client: Client, values: dict[str, float], shown: str
) -> None:
    rack(80.0, **values)
    tile = html(client, "/hot").split("Least margin to slowdown")[1].split("</p>")[0]
    assert shown in tile


def test_a_stale_gpu_is_not_hot_now(client: Client) -> None:
    save(block(gpu("GPU-old"), -3600, {TEMP: 95.0}), block(gpu("GPU-new", gpu_id=1), 0, {TEMP: 50.0}))
    body = html(client, "/hot")
    assert "GPU-old" not in body
    assert "of 1 GPU<" in body


def test_what_power_explains_is_not_the_fault_of_the_cooling() -> None:
    power = np.linspace(70.0, 700.0, LEAST_FOR_FIT)
    temperature = 30 + power / 20
    temperature[3] += 16.0
    models = np.zeros(LEAST_FOR_FIT, np.intp)
    rest = unexplained(temperature, power, models)
    assert int(np.argmax(rest)) == 3
    assert rest[3] > 10.0
    assert abs(float(rest.sum())) < 1e-9
    assert np.isnan(unexplained(temperature[1:], power[1:], models[1:])).all()  # too few
    assert np.isnan(unexplained(temperature, np.full(LEAST_FOR_FIT, 300.0), models)).all()


def test_hosts_are_ranked(client: Client) -> None:
    for host, celsius in (("cool", 40.0), ("warm", 60.0)):
        for number in range(2):
            save(block(gpu(f"GPU-{host}{number}", hostname=host, gpu_id=number), 0, {TEMP: celsius, POWER: 300.0}))
    part = html(client, "/hot").split('data-part="hosts"')[1]
    assert in_order(part, "/hosts/warm", "/hosts/cool")


def test_without_gpus_the_page_teaches(client: Client) -> None:
    body = html(client, "/hot")
    assert "make run" in body
    assert 'data-part="tiles"' not in body


def test_hosts_whose_gpus_send_no_temperature(client: Client) -> None:
    save(block(gpu(), 0, {UTIL: 5.0}))
    body = html(client, "/hot")
    assert "no GPU sends its temperature" in body
    assert "No GPU of these filters sends its temperature now." in body


def test_queries_do_not_grow_with_the_fleet(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    save(fleet(96))
    with django_assert_max_num_queries(8):
        html(client, "/hot")


def times_url(path: str = "/hot/times") -> str:
    return f"{path}?start={format_time(T0)}&end={format_time(T0 + 10 * MINUTE)}"


def test_the_time_above_85_degrees(client: Client, store: Store) -> None:
    gpus = [Gpu(uuid=f"GPU-{name}", hostname="host-1", gpu_id=n, model_name="H100") for n, name in enumerate("ab")]
    points: list[tuple[int, int, list[float | None]]] = [
        (n, T0 + minute * MINUTE, [90.0 + minute if minute < hot else 50.0])
        for n, hot in enumerate((3, 0))
        for minute in range(10)
    ]
    save_all(store, PointBlock(gpus, [TEMP], points))
    body = html(client, times_url())
    assert "/gpus/GPU-a" in body
    assert "/gpus/GPU-b" not in body
    assert '92 <small class="unit">°C' in body


def test_no_gpu_was_that_hot_and_no_readings_are_two_things(client: Client, store: Store) -> None:
    assert "there are no readings in this range" in html(client, times_url())
    save_all(store, PointBlock([Gpu(uuid="GPU-a", hostname="h")], [TEMP], [(0, T0, [50.0])]))
    assert "(1 GPU had readings)" in html(client, times_url())


def test_the_longest_comes_first() -> None:
    save(*(block(gpu(f"GPU-{n}", gpu_id=n), 0, {TEMP: 50.0}) for n in range(3)))
    hot, cool = HOT_CELSIUS + 1, HOT_CELSIUS
    found = [
        GroupSeries(("GPU-0",), [hot, cool, None]),
        GroupSeries(("GPU-1",), [hot, hot + 4, cool]),
        GroupSeries(("GPU-2",), [cool, None, None]),
        GroupSeries(("GPU-gone",), [hot, hot, hot]),
    ]
    times = hot_times(fleet_now(), np.arange(3), found, MINUTE)
    assert [(each.place.id, each.seconds, each.highest) for each in times] == [
        ("GPU-1", 120.0, hot + 4),
        ("GPU-0", 60.0, hot),
    ]


def test_while_the_store_is_away_the_part_says_so(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("no such host")

    rack(40.0)
    monkeypatch.setattr(hot, "ask_series", away)
    text = html(client, "/hot/times")
    assert "The store of readings does not answer" in text
    assert "Time above 85 °C" in text
