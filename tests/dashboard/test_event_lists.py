"""dashboard.event_lists: the events of one host or GPU, and where its page and the list of hosts show them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from dashboard.event_lists import MOST, events_of_gpu, events_of_host
from tests.dashboard.reading import html, text_of
from tests.health.building import NOON, make_event
from tests.inventory.building import UTIL, block, gpu, save

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


def entities(found: object) -> list[str]:
    return [row.event.summary for row in found.rows]  # type: ignore[attr-defined]


def test_open_ones_come_first_then_what_was_over_within_seven_days() -> None:
    make_event(summary="old", opened=NOON - 30 * DAY, severity="info")
    make_event(summary="bad", rule="ecc_dbe", opened=NOON - DAY, severity="critical")
    make_event(summary="over", state="closed", opened=NOON - 8 * DAY, closed=NOON - 6 * DAY)
    make_event(summary="long over", state="closed", opened=NOON - 9 * DAY, closed=NOON - 8 * DAY)
    make_event(summary="other", entity="GPU-other", hostname="node-2")
    gpu_id = "GPU-00000000-0000-0000-0000-000000000001"
    assert entities(events_of_gpu(gpu_id, NOON)) == entities(events_of_host("node-1", NOON)) == ["bad", "old", "over"]
    assert events_of_host("node-1", NOON).url == "/events?state=all&hostname=node-1&range=7d"


def test_a_mig_instance_has_the_events_of_its_board_too() -> None:
    make_event(summary="board", entity="GPU-1")
    make_event(summary="instance", entity="GPU-1:3", severity="critical")
    assert entities(events_of_gpu("GPU-1:3", NOON)) == ["instance", "board"]
    assert entities(events_of_gpu("GPU-1", NOON)) == ["board"]


def test_many_are_cut_and_it_says_so() -> None:
    for number in range(MOST):
        make_event(subject=str(number))
    assert not events_of_host("node-1", NOON).more
    make_event(state="closed", closed=NOON)
    found = events_of_host("node-1", NOON)
    assert (len(found.rows), found.more) == (MOST, True)


def test_pages_of_hosts_and_gpus_list_their_events(client: Client) -> None:
    save(block(gpu("GPU-1", hostname="node-1"), 0, {UTIL: 1.0}))
    assert "None is open" in html(client, "/hosts/node-1")
    event = make_event(entity="GPU-1", opened=timezone.now(), severity="critical", summary="<b>99 °C</b>")
    for path in ("/hosts/node-1", "/gpus/GPU-1"):
        body = html(client, path)
        assert f'<a href="/events/{event.pk}">Hot core</a>' in body
        assert "&lt;b&gt;99 °C" in body


def test_the_list_of_hosts_has_the_number_of_each_severity_and_sorts_by_it(client: Client) -> None:
    for number in range(1, 4):
        save(block(gpu(f"GPU-{number}", hostname=f"node-{number}"), 0, {UTIL: 1.0}))
    make_event(entity="GPU-2", hostname="node-2", severity="critical")
    make_event(entity="GPU-2", hostname="node-2", rule="clock_low")
    make_event(entity="GPU-3", hostname="node-3")
    text = text_of(html(client, "/hosts?sort=-events"))
    assert text.index("node-2 reporting ⬣ 1 critical ▲ 1 warning") < text.index("node-3 reporting ▲ 1 warning") < text.index("node-1 reporting –")  # fmt: skip
    assert 'href="/events?hostname=node-2"' in html(client, "/hosts")
