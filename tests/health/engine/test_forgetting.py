"""GPUs that are long gone leave the state, and nothing else changes."""

from __future__ import annotations

from health.engine.engine import Engine
from readings.times import SECOND
from tests.health.engine.building import HOUR, START, UTIL, XID, FleetFeed, gpu, level, make_rules, rule

RULES = make_rules(rule("busy", "condition", level("warning", "GPU_UTIL > 90", samples=3, clear_samples=2)))


def run(forget: bool) -> FleetFeed:
    feed = FleetFeed(Engine(RULES), 60.0)
    old = [(gpu(number, "gone", mig_id="1" if number == 2 else ""), {UTIL: 50.0, XID: 0.0}) for number in range(4)]
    stays = [(gpu(number, "stays"), {UTIL: 50.0, XID: 0.0}) for number in range(3)]
    feed.run(600, [*old, *stays])
    feed.run(60, [(gpu(3, "gone"), {UTIL: 50.0, XID: 48.0})])  # an event keeps it
    feed.run(3 * 3600, stays)
    if forget:
        feed.engine = Engine.load(feed.engine.dump(), RULES, forget_ns=2 * HOUR)
    feed.run(300, [(gpu(1, "stays"), {UTIL: 95.0, XID: 79.0}), stays[0], stays[2]])
    feed.run(300, stays)
    return feed


def test_the_gone_are_forgotten_and_the_others_go_on_as_before() -> None:
    feed, whole = run(forget=True), run(forget=False)
    assert [each.id for each in feed.engine.registry.gpus] == [
        "GPU-gone-3",
        *(f"GPU-stays-{number}" for number in range(3)),
    ]
    assert len(whole.engine.registry.gpus) == 8
    of_the_others = [each for each in whole.seen if "gone" not in each.key.entity.id]
    assert [each for each in feed.seen if "gone" not in each.key.entity.id] == of_the_others
    assert {each.key.rule for each in of_the_others} >= {"busy", "xid_fatal"}


def test_one_that_comes_back_is_new() -> None:
    feed = run(forget=True)
    at = feed.at
    feed.send([(gpu(0, "gone"), {UTIL: 50.0, XID: 79.0})])
    assert feed.engine.registry.first_ns[-1] == START + round(at) * SECOND
    assert [each for each in feed.seen if each.key.entity.id == "GPU-gone-0" and each.change == "opened"] == []


def test_more_gpus_than_allowed_are_left_out() -> None:
    feed = FleetFeed(Engine(RULES, most_gpus=2))
    feed.run(50, [(gpu(number), {UTIL: 95.0}) for number in range(4)])
    assert len(feed.engine.registry) == 2
    assert feed.said() == [("opened", "busy", "GPU-node-1-0"), ("opened", "busy", "GPU-node-1-1")]
