"""Who is not heard of: each silence is said once, by the widest thing that is silent."""

from __future__ import annotations

from health.engine.absence import NEVER_SEEN
from health.engine.facts import Facts
from readings.model import Gpu
from readings.times import SECOND
from tests.health.engine.building import ENERGY, START, UTIL, gpu, start


def points(*gpus: Gpu) -> list[tuple[Gpu, dict[str, float | None]]]:
    return [(each, {UTIL: 50.0}) for each in gpus]


def hosts(count: int, gpus: int = 2) -> list[list[Gpu]]:
    return [[gpu(number, f"node-{host}") for number in range(gpus)] for host in range(count)]


def test_a_gpu_is_missing_while_its_host_reports_others() -> None:
    feed = start()
    feed.run(100, points(gpu(0), gpu(1)))
    feed.run(110, points(gpu(0)))
    assert feed.said() == []
    feed.run(30, points(gpu(0)))
    assert feed.said() == [("opened", "gpu_missing", "GPU-node-1-1")]
    assert feed.seen[0].at_ns == START + (90 + 120) * SECOND
    feed.run(20, points(gpu(0), gpu(1)))
    feed.run(20, points(gpu(0), gpu(1)))
    assert feed.said()[1:] == [("closed", "gpu_missing", "GPU-node-1-1")]


def test_what_is_in_maintenance_or_retired_is_not_missed() -> None:
    for facts in (
        Facts(excused_gpus=frozenset({"GPU-node-1-1"})),
        Facts(excused_hosts=frozenset({"node-1"})),
        Facts(retired_gpus=frozenset({"GPU-node-1-1"})),
    ):
        feed = start(facts=facts)
        feed.run(100, points(gpu(0), gpu(1)))
        feed.run(300, points(gpu(0)))
        assert feed.said() == []
        feed.engine.facts = Facts()
        feed.run(20, points(gpu(0)))
        assert feed.said() == [("opened", "gpu_missing", "GPU-node-1-1")]
        feed.engine.facts = facts
        feed.run(20, points(gpu(0)))
        assert feed.said()[1:] == [("closed", "gpu_missing", "GPU-node-1-1")]


def test_a_fallen_gpu_is_not_missing_too() -> None:
    feed = start()
    xid = "DCGM_FI_DEV_XID_ERRORS"
    feed.run(50, [(gpu(0), {UTIL: 50.0}), (gpu(1), {UTIL: 50.0, xid: 0.0})])
    feed.run(10, [(gpu(0), {UTIL: 50.0}), (gpu(1), {UTIL: 50.0, xid: 79.0})])
    feed.run(300, points(gpu(0)))
    assert [each for each in feed.said() if each[0] == "opened"] == [("opened", "xid_fatal", "GPU-node-1-1")]


def test_a_slot_where_others_of_the_model_have_a_gpu_is_missing_one() -> None:
    fleet = hosts(11, 8)
    del fleet[3][5]
    feed = start()
    feed.run(110, points(*[each for host in fleet for each in host]))
    assert feed.said() == []
    feed.run(60, points(*[each for host in fleet for each in host]))
    assert feed.said() == [("opened", "gpu_missing", "node-3/5")]
    assert feed.seen[0].key.entity.kind == "slot"
    assert feed.seen[0].text == NEVER_SEEN
    fleet[3].append(gpu(5, "node-3"))
    feed.run(60, points(*[each for host in fleet for each in host]))
    assert feed.said()[1:] == [("closed", "gpu_missing", "node-3/5")]


def test_what_a_person_expects_counts_for_one_host_too() -> None:
    feed = start(facts=Facts(expected={"node-1": 3}))
    feed.run(200, points(gpu(0), gpu(1)))
    assert feed.said() == [("opened", "gpu_missing", "node-1/2")]


def test_a_silent_host_is_said_once_and_its_gpus_events_are_unknown_meanwhile() -> None:
    fleet = hosts(5)
    xid = "DCGM_FI_DEV_XID_ERRORS"
    feed = start()
    everyone = [each for host in fleet for each in host]
    feed.run(50, [(each, {UTIL: 50.0, xid: 0.0}) for each in everyone])
    feed.run(10, [(fleet[0][0], {UTIL: 50.0, xid: 48.0})])
    others = [each for host in fleet[1:] for each in host]
    feed.run(320, points(*others))
    opened = [("opened", "xid_fatal", "GPU-node-0-0"), ("opened", "host_stale", "node-0")]
    assert feed.said("opened") == opened
    assert feed.said("lost") == [("lost", "xid_fatal", "GPU-node-0-0")]
    feed.run(620, points(*others))
    assert feed.said("raised") == [("raised", "host_stale", "node-0")]
    feed.run(50, points(*everyone))
    assert feed.said("closed") == [("closed", "host_stale", "node-0")]
    assert feed.said("regained") == [("regained", "xid_fatal", "GPU-node-0-0")]
    assert feed.said("opened") == opened


def test_everything_silent_at_once_is_one_event() -> None:
    fleet = hosts(30)
    feed = start()
    for _ in range(10):
        for source, part in (("a", fleet[:15]), ("b", fleet[15:])):
            feed.send(points(*[each for host in part for each in host]), source=source)
        feed.at += 10
    feed.silence(3600)
    assert feed.said("opened") == [("opened", "source_silent", "")]
    assert feed.seen[0].at_ns == START + (90 + 300 + 120) * SECOND
    for _ in range(10):
        for source, part in (("a", fleet[:15]), ("b", fleet[15:])):
            feed.send(points(*[each for host in part for each in host]), source=source)
        feed.at += 10
    assert feed.said() == [("opened", "source_silent", ""), ("closed", "source_silent", "")]


def test_one_of_two_sources_silent_is_one_event_of_that_source() -> None:
    fleet = hosts(10)
    feed = start()
    for second in range(0, 900, 10):
        if second < 100:
            feed.send(points(*[each for host in fleet[:5] for each in host]), source="a")
        feed.send(points(*[each for host in fleet[5:] for each in host]), source="b")
        feed.at += 10
    assert feed.said("opened") == [("opened", "source_silent", "a")]
    assert feed.seen[0].key.entity.kind == "source"


def test_a_capture_that_has_ended_is_not_silent() -> None:
    feed = start(live=False)
    feed.run(100, points(gpu(0), gpu(1)))
    feed.silence(7200)
    assert feed.said() == []


def test_a_clock_that_is_an_hour_ahead_is_said_and_breaks_nothing_else() -> None:
    feed = start()

    def minute(ahead: float) -> None:
        for _ in range(6):
            feed.send(points(gpu(0, "node-1")))
            feed.send(points(gpu(0, "node-2"), gpu(1, "node-2")), at=feed.at + ahead)
            feed.at += 10

    for _ in range(10):
        minute(3600)
    assert feed.said() == [("opened", "clock_skew", "node-2")]
    for _ in range(10):
        minute(0)
    assert feed.said()[1:] == [("closed", "clock_skew", "node-2")]


def test_what_a_person_closed_is_said_again_only_after_it_was_over() -> None:
    feed = start()
    feed.run(100, points(gpu(0), gpu(1)))
    feed.run(200, points(gpu(0)))
    feed.engine.resolve(feed.seen[0].key)
    feed.run(600, points(gpu(0)))
    assert len(feed.said()) == 1
    feed.run(60, points(gpu(0), gpu(1)))
    feed.run(200, points(gpu(0)))
    assert feed.said() == [("opened", "gpu_missing", "GPU-node-1-1")] * 2


def test_what_waited_in_a_spool_is_late_and_nobody_is_silent() -> None:
    fleet = hosts(5)
    feed = start()
    for minute in range(60):  # an hour of the past arrives within a minute
        for host in fleet:
            feed.send(points(*host), at=minute * 60 - 3600)
        feed.at += 1
    feed.run(600, points(*[each for host in fleet for each in host]))
    assert feed.said() == []


def test_a_log_that_was_away_makes_nobody_silent() -> None:
    fleet = hosts(5)
    feed = start()
    feed.run(100, points(*[each for host in fleet for each in host]))
    feed.at += 1800
    for host in fleet:
        feed.run(10, points(*host))
    feed.run(300, points(*[each for host in fleet for each in host]))
    assert feed.said() == []
    feed.at += 1800
    feed.run(500, points(*fleet[0]))
    assert ("opened", "host_stale", "node-1") in feed.said() or ("opened", "source_silent", "s") in feed.said()


def test_a_gap_of_the_host_is_no_absence_of_one_gpu_that_comes_back_a_sample_later() -> None:
    feed = start(step=30)
    feed.run(600, points(gpu(0), gpu(1)))
    feed.silence(240)
    feed.run(90, points(gpu(0)))
    assert feed.said() == []
    came_back = feed.at - 90
    feed.run(90, points(gpu(0)))
    assert feed.said() == [("opened", "gpu_missing", "GPU-node-1-1")]
    assert feed.seen[0].at_ns == START + round(came_back + 120) * SECOND


def test_a_repeat_from_a_clock_that_is_ahead_is_one() -> None:
    feed = start(step=30)
    for energy in range(100, 110):
        feed.send([(gpu(0), {UTIL: 50.0, ENERGY: float(energy)})], at=feed.at + 300)
        feed.at += 30
    feed.send([(gpu(0), {UTIL: 50.0, ENERGY: 107.0})], at=210 + 300)
    assert feed.said() == [("opened", "clock_skew", "node-1")]


def test_a_gpu_that_is_replaced_fills_no_other_slot() -> None:
    feed = start(facts=Facts(expected={"node-1": 3}))
    feed.run(200, points(gpu(0), gpu(1)))
    feed.run(200, points(gpu(0), gpu(1, uuid="GPU-new")))
    assert [each for each in feed.said() if each[1] == "gpu_missing"] == [("opened", "gpu_missing", "node-1/2")]


def test_what_waited_in_a_spool_may_arrive_gpu_by_gpu() -> None:
    feed = start()
    fleet = hosts(11, 8)
    for minutes in range(0, 60, 10):  # ten minutes of a GPU, then of the next
        for each in [one for host in fleet for one in host]:
            for minute in range(10):
                feed.send(points(each), at=(minutes + minute) * 60 - 3600)
            feed.at += 0.2
    feed.run(600, points(*[each for host in fleet for each in host]))
    assert feed.said() == []


def test_a_gpu_that_comes_and_goes_is_soon_one_event_and_ends_when_it_is_retired() -> None:
    feed = start()
    feed.run(100, points(gpu(0), gpu(1)))
    for _ in range(30):
        feed.run(150, points(gpu(0)))
        feed.run(40, points(gpu(0), gpu(1)))
    assert [rule for _, rule, _ in feed.said("opened")].count("gpu_missing") == 5
    feed.engine.facts = Facts(retired_gpus=frozenset({"GPU-node-1-1"}))
    feed.run(30, points(gpu(0)))
    assert ("closed", "gpu_missing", "GPU-node-1-1") in feed.said()[-3:]


def test_a_clock_of_a_host_without_gpus_is_forgotten() -> None:
    feed = start()
    for number in range(6):
        # The GPU is said to be on another host after three messages each.
        feed.send([(gpu(0, f"node-{number // 3}", uuid="GPU-1"), {UTIL: 1.0})], at=feed.at + 600)
        feed.at += 10
    assert feed.said() == [("opened", "clock_skew", "node-0"), ("opened", "clock_skew", "node-1")]
    feed.silence(7300)
    assert ("closed", "clock_skew", "node-0") in feed.said()
    assert ("closed", "clock_skew", "node-1") not in feed.said()
    assert set(feed.engine._absence.state().skews) == {"node-1"}
