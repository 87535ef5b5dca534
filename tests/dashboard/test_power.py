"""dashboard.views.power: who draws the power, what is left to the limits, and energy."""

from __future__ import annotations

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from dashboard.views.power import ENERGY, LIMIT, energy
from inventory.models import Host
from readings.model import Gpu, PointBlock
from readings.times import SECOND, format_time
from stores.base import GroupSeries, Store
from tests.api.conftest import save as save_all
from tests.dashboard.reading import html, part, text_of
from tests.inventory.building import POWER, T0, UTIL, block, fleet, gpu, save

pytestmark = pytest.mark.django_db
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND


def test_the_newest_readings_are_added_up_and_never_over_time(client: Client) -> None:
    for seconds in (0, 10, 20):
        save(
            block(gpu("GPU-a"), seconds, {POWER: 300.0, UTIL: 90.0}),
            block(gpu("GPU-b", gpu_id=1), seconds, {POWER: 100.0, UTIL: 0.0}),
        )
    text = text_of(html(client, "/power"))
    assert "Power now 400 W 2 of 2 GPUs report it" in text
    assert "On idle GPUs 100 W 1 GPU at 0 %" in text
    assert "Power limits n/a no GPU sends it" in text
    assert "Headroom n/a" in text


def test_what_is_left_to_the_limits_counts_gpus_that_tell_both(client: Client) -> None:
    save(
        block(gpu("GPU-a"), 0, {POWER: 300.0, LIMIT: 700.0}),
        block(gpu("GPU-b", gpu_id=1), 0, {POWER: 250.0}),
        block(gpu("GPU-c", gpu_id=2), 0, {LIMIT: 700.0}),
    )
    text = text_of(html(client, "/power"))
    assert "Power limits 700 W 1 of 2 GPUs report it" in text
    assert "Headroom 400 W of 1 GPU" in text


def test_groups_add_up_to_the_whole(client: Client) -> None:
    save(
        block(gpu("GPU-a", hostname="n1", namespace="research", pod="p"), 0, {POWER: 300.0}),
        block(gpu("GPU-b", hostname="n2"), 0, {POWER: 100.0}),
    )
    Host.objects.filter(name="n2").update(owner="vision")
    assert "research 300 W 75.0 % 1" in part(html(client, "/power?by=namespace"), "groups")
    assert "no namespace 100 W 25.0 % 1" in part(html(client, "/power?by=namespace"), "groups")
    assert "vision 100 W" in part(html(client, "/power?by=owner"), "groups")
    assert "n1 300 W" in part(html(client, "/power?by=host"), "groups")
    assert "NVIDIA H100 80GB HBM3 400 W 100.0 % 2" in part(html(client, "/power?by=nonsense"), "groups")


def test_the_largest_consumers_come_first(client: Client) -> None:
    save(
        block(gpu("GPU-a"), 0, {POWER: 100.0, LIMIT: 100.0}),
        block(gpu("GPU-b", gpu_id=1), 0, {POWER: 300.0, LIMIT: 600.0}),
    )
    table = part(html(client, "/power"), "gpus")
    assert table.index("gpu 1 · b") < table.index("gpu 0 · a")
    by_share = part(html(client, "/power?sort=-share"), "gpus")
    assert by_share.index("gpu 0 · a") < by_share.index("gpu 1 · b")


def test_without_gpus_and_without_power(client: Client) -> None:
    assert "make run" in text_of(html(client, "/power"))
    save(block(gpu(), 0, {UTIL: 5.0}))
    text = text_of(html(client, "/power"))
    assert "Power now n/a 0 of 1 GPU reports it" in text
    assert "No GPU of these filters reports its power now." in text


def test_queries_do_not_grow_with_the_fleet(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    save(fleet(96))
    with django_assert_max_num_queries(8):
        text_of(html(client, "/power?by=host"))


def series(gpu_id: str, *values: float | None) -> GroupSeries:
    return GroupSeries((gpu_id,), list(values))


KWH = 3.6e9  # in mJ


def test_energy_by_counters_where_there_are_and_else_by_mean_power() -> None:
    found = energy(
        [series("a", 0.2 * KWH, None, 0.3 * KWH)],
        [series("a", 600.0, 600.0, 600.0), series("b", 300.0, None, 600.0)],
        step_ns=HOUR,
        range_ns=3 * HOUR,
    )
    assert found is not None
    assert (found.counted, found.estimated, found.doubted) == (1, 1, 0)
    assert found.counted_kwh == pytest.approx(0.5)
    assert found.estimated_kwh == pytest.approx(0.9)
    assert found.kwh == pytest.approx(1.4)
    assert found.covered == pytest.approx(200 / 3)


def test_a_counter_that_jumped_is_not_believed() -> None:
    found = energy([series("a", 27 * KWH)], [series("a", 500.0)], step_ns=HOUR, range_ns=HOUR)
    assert found is not None
    assert (found.counted, found.estimated, found.doubted) == (0, 1, 1)
    assert found.kwh == pytest.approx(0.5)


def test_no_readings_are_no_energy() -> None:
    assert energy([], [series("a", None)], step_ns=HOUR, range_ns=HOUR) is None


def test_the_energy_of_a_range(client: Client, store: Store) -> None:
    gpus = [Gpu(uuid=f"GPU-{name}", hostname="h", gpu_id=n) for n, name in enumerate("ab")]
    points: list[tuple[int, int, list[float | None]]] = [
        (0, T0 + minute * MINUTE, [600.0, 1e9 + minute * 36e6]) for minute in range(61)
    ]
    points += [(1, T0 + minute * MINUTE, [300.0, None]) for minute in range(60)]
    save_all(store, PointBlock(gpus, [POWER, ENERGY], points))
    times = f"start={format_time(T0 - 34 * SECOND)}&end={format_time(T0 + 60 * MINUTE)}"
    text = text_of(html(client, f"/power/energy?{times}"))
    assert "0.59 kWh of 1 GPU, from the first to the last reading" in text or "0.60 kWh of 1 GPU" in text
    assert "0.30 kWh of 1 GPU without a counter" in text
    assert "No GPU has readings of power or energy" in text_of(html(client, f"/power/energy?{times}&hostname=other"))
