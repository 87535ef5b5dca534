"""Hosts that break again and again."""

from __future__ import annotations

from tests.health.engine.building import UTIL, XID, FleetFeed, gpu, start


def fail(feed: FleetFeed, number: int) -> None:
    for code in (0.0, 48.0):
        feed.run(feed.step, [(gpu(number), {UTIL: 50.0, XID: code})])


def test_a_host_with_five_different_critical_events_is_a_lemon() -> None:
    feed = start()
    for number in range(5):
        fail(feed, number)
    lemons = [each for each in feed.seen if each.key.rule == "lemon_node"]
    assert [each.key.entity for each in lemons] == [("host", "node-1")]
    feed.engine.resolve(lemons[0].key)
    fail(feed, 5)
    assert len([each for each in feed.seen if each.key.rule == "lemon_node"]) == 1


def test_the_events_of_one_fault_count_once() -> None:
    feed = start()
    for number in range(4):
        fail(feed, number)
    for code in (0.0, 79.0, 0.0, 48.0):
        feed.run(feed.step, [(gpu(0), {UTIL: 50.0, XID: code})])
    assert not [each for each in feed.seen if each.key.rule == "lemon_node"]
    fail(feed, 4)
    assert [each for each in feed.seen if each.key.rule == "lemon_node"]
