"""What goes out, when, and what becomes of it: with a real web server behind Apprise, and a clock that the test moves."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from health.actions import acknowledge, resolve
from health.models import Event, EventTransition, Mute, Notice
from health.notify.notifier import GIVE_UP, KEPT, Notifier, open_notifier, run
from health.notify.outbox import post
from health.notify.retrying import FIRST_RETRY, LONGEST_RETRY, retry_wait
from health.rule_table import rules_now
from inventory.models import Host
from tests.health.building import make_event
from tests.health.notify.receivers import Received, Receiver, receiving, until

pytestmark = pytest.mark.django_db
START = timezone.now()


class Desk:
    """A notifier with one channel, and its clock."""

    def __init__(self, receiver: Receiver) -> None:
        found = open_notifier()
        assert found is not None
        self.notifier: Notifier = found
        self.receiver = receiver
        self.now = START

    def open(self, rule: str = "rule_hot", **fields: Any) -> Event:
        """An event opens, now, on a GPU of its own unless it is given one."""
        own = {"opened": self.now, "severity": "critical", "entity": f"GPU-x{Event.objects.count()}"}
        event = make_event(rule, **own | fields)
        self.post(event, "opened")
        return event

    def close(self, event: Event) -> None:
        """It is over, now."""
        Event.objects.filter(pk=event.pk).update(state="closed", closed=self.now)
        event.refresh_from_db()
        self.post(event, "closed")

    def post(self, event: Event, kind: str) -> None:
        """A step of it, now."""
        step = EventTransition(event=event, kind=kind, at=self.now, recorded=self.now, severity=event.severity)
        post([(event, step)], self.now)

    def pass_time(self, seconds: float = 31.0) -> list[Received]:
        """Let time pass, and send what is due then. Returns what came."""
        self.now += timedelta(seconds=seconds)
        before = len(self.receiver.got)
        while True:
            self.notifier.step(self.now)
            if not self.notifier.is_sending:
                return self.receiver.got[before:]
            until(lambda: all(queue.flight is None or queue.flight.is_over for queue in self.notifier._queues))

    def sweep(self, seconds: float) -> list[Received]:
        """The same with what is looked for now and then."""
        self.notifier.sweep(self.now + timedelta(seconds=seconds))
        return self.pass_time(seconds)

    def restart(self) -> None:
        """As after a kill."""
        found = open_notifier()
        assert found is not None
        self.notifier = found


@pytest.fixture
def desk(receiver: Receiver, settings: Any) -> Desk:
    settings.NOTIFY_URLS = [f"[name=hook]{receiver.channel}"]
    return Desk(receiver)


def outcomes() -> list[tuple[str, str]]:
    return sorted(Notice.objects.values_list("kind", "outcome"))


def titles(found: list[Received]) -> list[str]:
    return [each.json["title"] for each in found]


def test_an_event_is_heard_of_and_so_is_its_end(desk: Desk) -> None:
    event = desk.open()
    assert desk.pass_time(29) == []
    assert titles(desk.pass_time(1)) == ["CRITICAL: rule_hot on node-1 · gpu 0"]
    desk.close(event)
    assert titles(desk.pass_time()) == ["RESOLVED: rule_hot on node-1 · gpu 0"]
    assert outcomes() == [("closed", "sent"), ("opened", "sent")]
    assert desk.pass_time() == []


def test_rules_give_their_title_and_what_to_do(desk: Desk, settings: Any) -> None:
    settings.PUBLIC_URL = "https://gpus.example.com"
    desk.restart()
    rule = rules_now()["gpu_missing"]
    event = desk.open(rule.name, action=rule.action)
    (found,) = desk.pass_time()
    assert found.json["title"] == f"CRITICAL: {rule.title} on node-1 · gpu 0"
    assert f"To do: {rule.action_text}" in found.json["message"]
    assert f"https://gpus.example.com/events/{event.pk}" in found.json["message"]


def test_a_message_that_is_never_taken_stops_none_behind_it(desk: Desk) -> None:
    desk.receiver.answer = lambda request: (400 if "rule_bad" in request.json["title"] else 200, {})
    desk.open("rule_bad")
    desk.pass_time()
    for number in range(5):
        desk.open(f"rule_{number}")
    came = [each for _ in range(120) for each in desk.pass_time(1)]
    assert {title for title in titles(came) if "rule_bad" not in title} == {
        f"CRITICAL: rule_{number} on node-1 · gpu 0" for number in range(5)
    }
    assert Notice.objects.filter(outcome="sent").count() == 5


def test_events_of_one_rule_and_host_go_out_together(desk: Desk) -> None:
    for slot in range(8):
        desk.open(entity=f"GPU-{slot}", slot=slot)
    desk.open("rule_xid", entity="GPU-1")
    found = desk.pass_time()
    assert sorted(titles(found)) == ["CRITICAL: 8 × rule_hot on node-1", "CRITICAL: rule_xid on node-1 · gpu 0"]
    assert len({each.key for each in found}) == 2


def test_what_begins_together_on_one_gpu_is_one_message(desk: Desk) -> None:
    for rule in ("xid_fatal", "ecc_dbe", "recovery_action"):
        desk.open(rule, entity="GPU-1")
    (found,) = desk.pass_time()
    assert found.json["title"].endswith("on node-1 · gpu 0, and 2 more")


def test_groups_may_be_of_a_tag(desk: Desk, settings: Any) -> None:
    settings.NOTIFY_GROUP_BY = ["rack"]
    for number in range(4):
        name = f"node-{number}"
        Host.objects.create(name=name, tags={"rack": f"r{number % 2}"}, first_seen=START, last_seen=START)
        desk.open(hostname=name, entity=f"GPU-{number}")
    assert titles(desk.pass_time()) == ["CRITICAL: 2 × rule_hot on 2 hosts"] * 2


def test_what_came_and_went_is_one_message(desk: Desk) -> None:
    event = desk.open()
    desk.now += timedelta(seconds=10)
    desk.close(event)
    assert titles(desk.pass_time()) == ["CRITICAL: rule_hot on node-1 · gpu 0, over again"]
    assert desk.pass_time() == []


def test_a_service_that_fails_for_a_minute_loses_nothing(desk: Desk) -> None:
    desk.receiver.answer = lambda request: (500, {})
    desk.open()
    desk.open("rule_xid")
    tried = []
    for _ in range(60):
        tried += desk.pass_time(1)
    assert 5 <= len(tried) <= 12
    notice = Notice.objects.order_by("-attempts")[0]
    assert (notice.last_error, notice.outcome, notice.sent) == (
        "the service answered 500 Internal Server Error",
        "",
        None,
    )
    desk.receiver.answer = lambda request: (200, {})
    came = [each for _ in range(70) for each in desk.pass_time(1)]
    assert desk.notifier.is_sending is False
    assert sorted(titles(came)) == ["CRITICAL: rule_hot on node-1 · gpu 0", "CRITICAL: rule_xid on node-1 · gpu 0"]
    assert {each.key for each in came} == {each.key for each in tried}
    assert outcomes() == [("opened", "sent")] * 2


def test_after_an_outage_comes_one_digest_and_no_flood(desk: Desk) -> None:
    desk.receiver.answer = lambda request: (503, {})
    for number in range(9):
        desk.open(f"rule_{number}")
        desk.pass_time(40)
    desk.receiver.answer = lambda request: (200, {})
    came = [each for _ in range(20) for each in desk.pass_time(60)]
    assert titles(came)[0] == "CRITICAL (digest): 9 events on node-1"
    assert len(came) == 1
    assert outcomes() == [("opened", "sent")] * 9


def test_a_service_says_when_to_come_again(desk: Desk) -> None:
    desk.receiver.answer = lambda request: (429, {"Retry-After": "120"})
    desk.open()
    assert len(desk.pass_time()) == 1
    desk.receiver.answer = lambda request: (200, {})
    assert desk.pass_time(119) == []
    assert len(desk.pass_time(2)) == 1


def test_it_is_given_up_after_days_and_that_is_said(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.receiver.answer = lambda request: (500, {})
    desk.open()
    desk.pass_time()
    for _ in range(4):
        desk.pass_time(GIVE_UP.total_seconds() / 3)
    assert outcomes() == [("opened", "given up")]
    assert "hook: 1 notices given up after 3 days: the service answered 500" in caplog.text
    assert caplog.text.count("a message was not sent") == 1
    assert desk.pass_time(10_000) == []


def test_after_a_kill_between_sending_and_noting_it_comes_once_more_with_the_same_key(desk: Desk) -> None:
    desk.open()
    desk.now += timedelta(seconds=31)
    desk.notifier.step(desk.now)
    (first,) = desk.receiver.wait_for(1)
    desk.restart()
    desk.open(entity="GPU-2")  # it would be of the same group
    (again,) = desk.pass_time(1)
    assert again.key == first.key
    assert again.json["title"] == first.json["title"]
    assert titles(desk.pass_time(30)) == ["CRITICAL: rule_hot on node-1 · gpu 0"]
    assert outcomes() == [("opened", "sent")] * 2


def test_what_was_sent_is_not_sent_again_when_the_database_could_not_note_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open()
    desk.now += timedelta(seconds=31)
    with monkeypatch.context() as patch:
        patch.setattr(Notifier, "_sent", lambda *args: (_ for _ in ()).throw(OperationalError("database is locked")))
        desk.notifier.step(desk.now)
        desk.receiver.wait_for(1)
        until(lambda: all(queue.flight is not None and queue.flight.is_over for queue in desk.notifier._queues))
        for _ in range(3):
            with pytest.raises(OperationalError):
                desk.notifier.step(desk.now)
    assert desk.pass_time(60) == []
    assert outcomes() == [("opened", "sent")]


def mute(now: datetime, **fields: Any) -> Mute:
    return Mute.objects.create(**{"starts": now, "expires": now + timedelta(hours=2)} | fields)


def test_what_is_muted_waits_and_comes_when_it_is_still_there_afterwards(desk: Desk) -> None:
    mute(desk.now, rule="rule_hot")
    stays, goes, other = desk.open(), desk.open(entity="GPU-2"), desk.open("rule_xid")
    assert titles(desk.pass_time()) == ["CRITICAL: rule_xid on node-1 · gpu 0"]
    desk.close(goes)
    assert desk.pass_time(3600) == []
    assert outcomes() == [("closed", "not needed"), ("opened", "muted"), ("opened", "muted"), ("opened", "sent")]
    assert titles(desk.pass_time(7200)) == ["CRITICAL: rule_hot on node-1 · gpu 0"]
    assert desk.pass_time(7200) == []
    assert not Notice.objects.filter(sent=None).exists()
    assert other.pk != stays.pk


def test_what_is_in_maintenance_is_not_heard_of_until_it_is_back(desk: Desk) -> None:
    host = Host.objects.create(name="node-1", asset_state="maintenance", first_seen=START, last_seen=START)
    over, stays = desk.open(), desk.open("rule_xid")
    assert desk.pass_time() == []
    desk.close(over)
    assert desk.pass_time(3600) == []
    host.asset_state = "active"
    host.save()
    assert titles(desk.pass_time(3600)) == ["CRITICAL: rule_xid on node-1 · gpu 0"]
    assert sorted(outcomes()) == [("closed", "not needed"), ("opened", "maintenance"), ("opened", "sent")]
    assert stays.pk


def test_the_end_is_heard_of_where_the_beginning_was_also_while_it_is_muted_later(desk: Desk) -> None:
    event = desk.open()
    desk.pass_time()
    muted = mute(desk.now)
    desk.close(event)
    assert desk.pass_time() == []
    muted.delete()
    assert outcomes() == [("closed", "muted"), ("opened", "sent")]


def test_who_resolves_an_event_is_named(desk: Desk) -> None:
    event = desk.open()
    desk.pass_time()
    resolve(event, "ann", "replaced")
    (found,) = desk.sweep(31) or desk.pass_time(31)
    assert found.json["title"].startswith("RESOLVED: ")
    assert "Resolved by: ann" in found.json["message"]
    assert desk.sweep(60) == []


def test_reminders_of_what_is_critical_open_and_not_acknowledged(desk: Desk, settings: Any) -> None:
    settings.NOTIFY_REPEAT = 4 * 3600.0
    event = desk.open()
    desk.open("rule_slow", severity="warning")
    assert len(desk.pass_time()) == 2
    assert desk.sweep(3 * 3600) == []
    (found,) = desk.sweep(3600)
    assert found.json["title"] == "CRITICAL: rule_hot on node-1 · gpu 0, still open"
    assert desk.sweep(3600) == []
    acknowledge(event, "ann")
    assert desk.sweep(5 * 3600) == []


def test_at_most_so_many_messages_an_hour_and_the_rest_is_a_digest(desk: Desk, settings: Any) -> None:
    settings.NOTIFY_MOST = 4
    came = []
    for number in range(20):
        desk.open(f"rule_{number}", severity="warning")
        came += desk.pass_time(60)
    assert len(came) == 3
    bad = desk.open("rule_xid")
    assert titles(desk.pass_time(60)) == ["CRITICAL (digest): 18 events on node-1"]
    desk.close(bad)
    later = [each for _ in range(80) for each in desk.pass_time(60)]
    assert titles(later) == ["RESOLVED: rule_xid on node-1 · gpu 0"]
    assert not Notice.objects.filter(sent=None).exists()


def test_a_thousand_events_at_once_are_one_message(desk: Desk) -> None:
    events = Event.objects.bulk_create(
        Event(
            rule=f"rule_{number % 7}", entity_kind="gpu", entity=f"GPU-{number}", severity="critical", hostname=f"node-{number // 8}",
            slot=number % 8, opened=desk.now, last_seen=desk.now, summary="90 °C",
        )
        for number in range(1000)
    )  # fmt: skip
    post(
        [(each, EventTransition(event=each, kind="opened", at=desk.now, recorded=desk.now)) for each in events],
        desk.now,
    )
    (found,) = desk.pass_time()
    assert found.json["title"] == "CRITICAL (digest): 1000 events on 125 hosts"
    assert len(found.body) < 10_000
    assert outcomes() == [("opened", "sent")] * 1000


def test_a_channel_that_hangs_does_not_delay_the_others(receiver: Receiver, settings: Any) -> None:
    released = threading.Event()
    with receiving() as slow:
        slow.answer = lambda request: (200, {}) if released.wait(30) else (500, {})
        settings.NOTIFY_URLS = [f"[name=slow]{slow.channel}?rto=60", f"[name=hook]{receiver.channel}"]
        desk = Desk(receiver)
        for number in range(3):
            desk.open(f"rule_{number}")
        desk.now += timedelta(seconds=31)

        def others_have_all() -> bool:
            desk.notifier.step(desk.now)
            return len(receiver.got) == 3

        until(others_have_all)
        assert len(slow.got) == 1
        released.set()
        desk.pass_time(1)
        assert len(slow.got) == 3
    assert outcomes() == [("opened", "sent")] * 6


def test_what_is_old_and_over_is_deleted_and_what_has_no_channel_is_given_up(desk: Desk, settings: Any) -> None:
    over, stays = desk.open(), desk.open("rule_xid")
    desk.pass_time()
    desk.close(over)
    desk.pass_time()
    settings.NOTIFY_URLS = ["[name=other]json://localhost:1"]
    desk.open("rule_slow")
    settings.NOTIFY_URLS = [f"[name=hook]{desk.receiver.channel}"]
    desk.notifier.tidy(desk.now + GIVE_UP + timedelta(minutes=1))
    assert Notice.objects.get(channel="other").outcome == "no such channel"
    desk.notifier.tidy(desk.now + KEPT + timedelta(minutes=1))
    assert set(Notice.objects.values_list("event", "channel")) == {
        (stays.pk, "hook"),
        (Event.objects.get(rule="rule_slow").pk, "other"),
    }


def test_waits_grow_to_a_bound_with_jitter() -> None:
    assert FIRST_RETRY * 0.7 < retry_wait(0) <= FIRST_RETRY
    assert all(LONGEST_RETRY * 0.7 < retry_wait(many) <= LONGEST_RETRY for many in (12, 500, 10**9))
    assert len({retry_wait(5) for _ in range(20)}) > 10


async def test_without_channels_it_waits_for_the_end_and_asks_nothing(settings: Any) -> None:
    settings.NOTIFY_URLS = []
    stop = asyncio.Event()
    task = asyncio.create_task(run(stop))
    await asyncio.sleep(0)
    stop.set()
    await asyncio.wait_for(task, 5)
