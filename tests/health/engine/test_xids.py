"""The last code that an exporter shows for ever is one event, and the past of a GPU and its host counts."""

from __future__ import annotations

import pytest

from readings.model import Point, PointBlock
from readings.times import SECOND
from tests.health.engine.building import ENERGY, START, UTIL, XID, FleetFeed, gpu, start

RECOVERY = "DCGM_FI_DEV_GPU_RECOVERY_ACTION"
PART = "DCGM_EXP_XID_ERRORS_COUNT:xid:"


def codes(feed: FleetFeed, *values: float, number: int = 0, more: dict[str, float] | None = None) -> None:
    for value in values:
        feed.run(feed.step, [(gpu(number), {UTIL: 50.0, XID: value} | (more or {}))])


def opened(feed: FleetFeed) -> list[tuple[str, str]]:
    return [(each.key.rule, each.key.subject) for each in feed.seen if each.change == "opened"]


def test_the_first_code_is_a_baseline_and_each_other_one_an_event() -> None:
    feed = start()
    codes(feed, 48, 48, 48, 79, 79, 79, 13, 9)
    assert opened(feed) == [("xid_fatal", "79"), ("xid_app", "13"), ("xid_unknown", "9")]
    assert feed.said("closed") == [("closed", "xid_app", "GPU-node-1-0")]
    codes(feed, 13)
    assert feed.said("repeated") == [("repeated", "xid_app", "GPU-node-1-0")]


def test_a_gap_changes_nothing_and_a_row_that_was_left_out_alone_comes_back_as_an_event() -> None:
    feed = start()
    everyone = [(gpu(0), {UTIL: 50.0, XID: 48.0}), (gpu(1), {UTIL: 50.0, XID: 0.0})]
    feed.run(50, everyone)
    feed.silence(200)
    feed.run(50, everyone)
    feed.run(
        100, [(gpu(0), {UTIL: 50.0, XID: None}), (gpu(1), {UTIL: 50.0, XID: None})]
    )  # the exporter's list was shorter
    feed.run(50, everyone)
    assert opened(feed) == []
    feed.run(100, [(gpu(0), {UTIL: 50.0, XID: None}), (gpu(1), {UTIL: 50.0, XID: 0.0})])
    feed.run(50, everyone)
    assert opened(feed) == [("xid_fatal", "48")]


def test_counts_show_repeats_and_the_first_of_a_code_only_where_counts_are_known() -> None:
    feed = start()
    feed.run(20, [(gpu(0), {UTIL: 50.0, PART + "31": 4.0, PART + "48": 1.0})])
    assert opened(feed) == []
    feed.run(20, [(gpu(0), {UTIL: 50.0, PART + "31": 4.0, PART + "48": 1.0, PART + "79": 1.0})])
    assert opened(feed) == [("xid_fatal", "79")]
    feed.run(20, [(gpu(0), {UTIL: 50.0, PART + "31": 0.0, PART + "79": 1.0})])  # the window has passed
    feed.run(20, [(gpu(0), {UTIL: 50.0, PART + "31": 1.0, PART + "79": 2.0})])
    assert opened(feed) == [("xid_fatal", "79"), ("xid_app", "31")]
    assert feed.said("repeated") == [("repeated", "xid_fatal", "GPU-node-1-0")]


def test_a_code_and_its_count_are_one_occurrence() -> None:
    feed = start()
    feed.run(20, [(gpu(0), {UTIL: 50.0, XID: 0.0, PART + "31": 0.0})])
    feed.run(10, [(gpu(0), {UTIL: 50.0, XID: 79.0, PART + "31": 0.0})])
    feed.run(10, [(gpu(0), {UTIL: 50.0, XID: 79.0, PART + "31": 0.0, PART + "79": 1.0})])
    assert [str(each.change) for each in feed.seen] == ["opened"]


def test_a_fatal_one_stays_until_the_driver_asks_for_nothing_more() -> None:
    feed = start()
    codes(feed, 0, 0, more={RECOVERY: 0.0})
    codes(feed, 48, 48, 48, 48, more={RECOVERY: 0.0})
    assert feed.said() == [("opened", "xid_fatal", "GPU-node-1-0")]
    codes(feed, 48, 48, more={RECOVERY: 1.0})
    codes(feed, 48, 48, more={RECOVERY: 0.0})
    assert len(feed.said()) == 1
    codes(feed, 48, more={RECOVERY: 0.0})
    assert feed.said()[1:] == [("closed", "xid_fatal", "GPU-node-1-0")]


def test_a_fatal_one_is_over_an_hour_after_a_reset() -> None:
    feed = start()
    codes(feed, 0, 48, more={ENERGY: 5000.0})
    codes(feed, 0, more={ENERGY: 10.0})
    reset_at = feed.at - 10
    codes(feed, *[0.0] * 365, more={ENERGY: 20.0})
    closed = [each for each in feed.seen if each.change == "closed" and each.key.rule == "xid_fatal"]
    assert [each.at_ns for each in closed] == [START + round(reset_at + 3600) * SECOND]
    assert ("gpu_reset", "") in opened(feed)


def test_the_same_fatal_one_after_two_resets_is_a_fault_of_the_hardware() -> None:
    feed = start()
    energy = 1e6
    codes(feed, 0, more={ENERGY: energy})
    for _ in range(3):
        energy += 10
        codes(feed, 48, more={ENERGY: energy})
        codes(feed, 0, more={ENERGY: 1.0})
        energy = 2.0
        feed.at += 600
    assert ("xid_after_reset", "48") in opened(feed)
    assert [each for each in opened(feed) if each[0] == "xid_after_reset"] == [("xid_after_reset", "48")]
    asked = {each.key.rule: each.values.get("action") for each in feed.seen if each.change == "opened"}
    assert asked["xid_fatal"] == "reset_gpu"
    assert asked["xid_after_reset"] is None  # its rule's own, since resets do not cure it


def test_five_bursts_of_a_fatal_one_in_a_day_ask_for_a_replacement() -> None:
    feed = start()
    codes(feed, 0)
    for _ in range(4):
        codes(feed, 48, 0, 48, 0)  # a burst
        feed.at += 600
    assert ("xid_repeat_gpu", "48") not in opened(feed)
    codes(feed, 48)
    assert ("xid_repeat_gpu", "48") in opened(feed)


def test_memory_faults_on_one_gpu_are_its_own_and_on_several_the_applications() -> None:
    feed = start()
    codes(feed, 0, 31, 0, 31)
    assert ("xid31_same_gpu", "") in opened(feed)
    codes(feed, 0, 31, number=1)
    assert ("xid31_many_gpus", "") in opened(feed)
    assert ("closed", "xid31_same_gpu", "GPU-node-1-0") in feed.said()


def test_a_preemptive_removal_after_another_code_is_no_event_of_its_own() -> None:
    feed = start()
    codes(feed, 0, 48, 45)
    assert opened(feed) == [("xid_fatal", "48")]
    codes(feed, *[0.0] * 10, 45)
    assert opened(feed)[1:] == [("xid_app", "45")]


def test_engaged_again_closes_disengaged() -> None:
    feed = start()
    codes(feed, 0, 163, 162)
    assert ("closed", "xid_warning", "GPU-node-1-0") in feed.said()


def test_nvlink_errors_are_critical_when_the_driver_asks_for_an_action() -> None:
    feed = start()
    codes(feed, 0, 145)
    assert feed.seen[-1].severity == "warning"
    codes(feed, 154)
    assert ("raised", "xid_nvlink5", "GPU-node-1-0") in feed.said()


def test_a_copy_engine_is_a_warning_the_second_time_in_a_day() -> None:
    feed = start()
    codes(feed, 0, 39, 0, 39)
    assert opened(feed) == [("xid_app", "39"), ("xid_warning", "39")]


def test_a_warning_is_over_after_a_quiet_day() -> None:
    feed = start(step=120)
    codes(feed, 0, 163)
    at_ns = feed.seen[-1].at_ns
    codes(feed, *[163.0] * 730)
    assert [(each.change, each.at_ns) for each in feed.seen[1:]] == [("closed", at_ns + 86_400 * SECOND)]


def test_nvlink_errors_are_critical_when_the_driver_asks_within_five_minutes() -> None:
    for wait, raised in ((240.0, True), (360.0, False)):
        feed = start()
        codes(feed, 0, 145)
        feed.at += wait
        codes(feed, 145, more={RECOVERY: 1.0})
        assert (("raised", "xid_nvlink5", "GPU-node-1-0") in feed.said()) is raised


def test_a_fatal_one_that_comes_back_after_a_reset_stays() -> None:
    feed = start()
    codes(feed, 0, 48, more={ENERGY: 5000.0})
    codes(feed, 0, more={ENERGY: 10.0})
    codes(feed, 48, more={ENERGY: 20.0})
    codes(feed, *[48.0] * 800, more={ENERGY: 30.0})
    assert ("closed", "xid_fatal", "GPU-node-1-0") not in feed.said()


def test_a_code_that_is_infinite_is_no_reading() -> None:
    feed = start()
    codes(feed, 0, float("inf"), 79, float("-inf"), 79)
    assert opened(feed) == [("xid_fatal", "79")]


def test_what_is_no_code_is_no_event() -> None:
    feed = start()
    codes(feed, 0, 1e15, 0, 1e300, 0, -5)
    feed.run(20, [(gpu(0), {UTIL: 50.0, PART + "79": 0.0, PART + "99999999999999999999": 0.0})])
    feed.run(20, [(gpu(0), {UTIL: 50.0, PART + "79": 1.0, PART + "99999999999999999999": 1.0})])
    assert sorted(opened(feed)) == [("xid_fatal", "79"), ("xid_unknown", "0")]
    feed.engine.dump()


def test_unknown_codes_of_a_gpu_are_one_event_that_names_the_newest_ones() -> None:
    feed = start(step=120)
    codes(feed, 0, *range(1001, 1031))
    codes(feed, 0, 2001, number=1)
    assert opened(feed) == [("xid_unknown", "1001"), ("xid_unknown", "2001")]
    newest = next(each for each in reversed(feed.seen) if each.key.subject == "1001")
    assert (newest.change, newest.count) == ("repeated", 30)
    assert newest.values["codes"] == ", ".join(map(str, range(1021, 1031)))
    # After a quiet day the next one is another event, of its own code.
    codes(feed, *[1030.0] * 730)
    codes(feed, 3001)
    assert opened(feed)[2:] == [("xid_unknown", "3001")]
    assert feed.seen[-1].values["codes"] == "3001"


def test_unknown_codes_of_counts_are_one_event_too() -> None:
    feed = start()
    names = [f"{PART}{code}" for code in range(5000, 5060)]
    feed.run(20, [(gpu(0), {UTIL: 50.0} | dict.fromkeys(names, 0.0))])
    feed.run(20, [(gpu(0), {UTIL: 50.0} | dict.fromkeys(names, 1.0))])
    assert opened(feed) == [("xid_unknown", "5000")]


def test_of_too_many_xids_in_one_block_the_newest_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("health.engine.xids.MOST_XIDS", 5)
    feed = start()
    codes(feed, 0, more={PART + "94": 0.0})
    codes(feed, 0, more={PART + "94": 0.0})
    points: list[Point] = [
        (0, START + (100 + number) * SECOND, [(48.0, 79.0)[number % 2], float(number + 1)]) for number in range(20)
    ]
    block = PointBlock([gpu(0)], [XID, PART + "94"], points)
    feed.engine.take(block, source="s", live=True, received_ns=START + 200 * SECOND)
    said = feed.engine.drain()
    assert min(each.at_ns for each in said) >= START + 115 * SECOND
    assert feed.engine.left_out["too_many_xids"] >= 15


def test_hosts_with_many_gpus_know_which_had_rows() -> None:
    feed = start()
    everyone = [(gpu(number), {UTIL: 50.0, XID: 48.0}) for number in range(3)]
    feed.run(50, everyone)
    # The newest row of the host is that of the GPU itself: others had none meanwhile.
    feed.run(100, [(gpu(number), {UTIL: 50.0, XID: None}) for number in range(3)])
    feed.run(10, [everyone[0], (gpu(1), {UTIL: 50.0, XID: None})])
    assert opened(feed) == []
