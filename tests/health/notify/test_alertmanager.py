"""Alerts in a real Alertmanager, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from health.actions import resolve
from health.models import Event, EventTransition, Mute
from health.muting import Muting
from health.notify.alertmanager import (
    AGAIN,
    FIRES_AT_LEAST,
    LASTS,
    OVER_FOR,
    Alert,
    AlertFeed,
    alerts_of,
    configured_targets,
    labels_of,
    open_pool,
    send_alerts,
)
from health.notify.errors import ChannelError, DeliveryError
from health.notify.messages import Wording
from inventory.models import Host
from tests.alertmanager import Alertmanager, find_alertmanager
from tests.health.building import make_event
from tests.health.notify.receivers import Receiver, receiving, until
from tests.ports import free_port

pytestmark = pytest.mark.django_db
WORDING = Wording(public_url="https://gpus.example.com")


@pytest.fixture
def manager(receiver: Receiver, tmp_path: Path) -> Iterator[Alertmanager]:
    found = Alertmanager(find_alertmanager(), tmp_path, receiver.url)
    try:
        found.start()
        yield found
    finally:
        found.stop()


class Desk:
    """A feed, and its clock, which starts at the time that an Alertmanager has."""

    def __init__(self, *, is_judging: bool = False) -> None:
        (target,) = configured_targets()
        self.feed = AlertFeed(target, open_pool(), WORDING, lambda: is_judging)
        self.now = timezone.now()

    def open(self, rule: str = "temp_high", **fields: Any) -> Event:
        event = make_event(rule, **{"opened": self.now, "severity": "critical"} | fields)
        EventTransition.objects.filter(event=event).update(recorded=self.now)
        return event

    def close(self, event: Event) -> None:
        Event.objects.filter(pk=event.pk).update(state="closed", closed=self.now)
        EventTransition.objects.create(
            event=event, kind="closed", at=self.now, recorded=self.now, severity=event.severity
        )

    def step(self, seconds: float = 0.0) -> float:
        self.now += timedelta(seconds=seconds)
        return self.feed.step(self.now)


def statuses(receiver: Receiver) -> list[tuple[str, str]]:
    return [(alert["status"], alert["labels"]["alertname"]) for each in receiver.got for alert in each.json["alerts"]]


def named(manager: Alertmanager) -> list[str]:
    return sorted(alert["labels"]["alertname"] for alert in manager.alerts())


def test_an_event_fires_and_is_resolved(manager: Alertmanager, receiver: Receiver, settings: Any) -> None:
    settings.ALERTMANAGER_URL = [manager.url]
    Host.objects.create(
        name="node-1", tags={"rack": "r1", "cluster": "eu"}, first_seen=timezone.now(), last_seen=timezone.now()
    )
    desk = Desk()
    event = desk.open(namespace="ml", pod="train-0", opened=desk.now - timedelta(minutes=5))
    EventTransition.objects.filter(event=event).update(recorded=desk.now - timedelta(minutes=5))
    desk.step()
    receiver.wait_for(1)
    (alert,) = manager.alerts()
    assert alert["labels"] == {
        "alertname": "temp_high", "severity": "critical", "service": "gpu-telemetry", "hostname": "node-1", "gpu": "0", "slot": "0",
        "uuid": event.entity, "model": "Synthetic GPU 80GB", "namespace": "ml", "pod": "train-0", "rack": "r1", "cluster": "eu",
    }  # fmt: skip
    assert alert["annotations"]["summary"] == "temp_high: 90 °C, limit 85 °C"
    assert alert["generatorURL"] == alert["annotations"]["link"] == f"https://gpus.example.com/events/{event.pk}"
    assert datetime.fromisoformat(alert["startsAt"].replace("Z", "+00:00")) == event.opened.replace(
        microsecond=event.opened.microsecond // 1000 * 1000
    )
    desk.close(event)
    desk.step()
    receiver.wait_for(2)
    assert statuses(receiver) == [("firing", "temp_high"), ("resolved", "temp_high")]
    until(lambda: manager.alerts() == [])


def test_it_fires_again_after_a_restart_of_the_alertmanager(
    manager: Alertmanager, receiver: Receiver, settings: Any
) -> None:
    settings.ALERTMANAGER_URL = [manager.url]
    desk = Desk(is_judging=True)
    event = desk.open()
    desk.step()
    until(lambda: named(manager) == ["Watchdog", "temp_high"])
    manager.stop()
    assert 0 < desk.step(AGAIN.total_seconds()) < 2
    assert desk.feed.failures == 1
    manager.start()
    assert manager.alerts() == []
    desk.step(2)
    assert desk.feed.failures == 0
    until(lambda: named(manager) == ["Watchdog", "temp_high"])
    desk.close(event)
    desk.step(FIRES_AT_LEAST.total_seconds())
    assert event.pk
    (sent,) = [alert for alert in alerts_now(desk) if alert["labels"]["alertname"] == "temp_high"]
    assert sent["endsAt"] <= desk.now.isoformat(timespec="milliseconds")


def alerts_now(desk: Desk) -> list[Alert]:
    return list(alerts_of(list(Event.objects.all()), Muting(), WORDING, desk.now))


def test_all_of_several_get_everything(receiver: Receiver, settings: Any) -> None:
    with receiving() as other:
        settings.ALERTMANAGER_URL = [f"{receiver.url}/am", f"http://ann:p%40ss@127.0.0.1:{other.port}"]
        first, second = configured_targets()
        assert second.name == f"the Alertmanager at 127.0.0.1:{other.port}"
        for target in (first, second):
            send_alerts(target, open_pool(), [{"labels": {"alertname": "x"}}])
        assert receiver.got[0].path == "/am/api/v2/alerts"
        assert other.got[0].headers["authorization"] == "Basic YW5uOnBAc3M="
        assert "authorization" not in {name.lower() for name in receiver.got[0].headers}


def test_only_what_is_new_goes_out_between_the_rounds(
    receiver: Receiver, settings: Any, django_assert_num_queries: Callable[..., Any]
) -> None:
    settings.ALERTMANAGER_URL = [receiver.url]
    desk = Desk()
    desk.open()
    desk.step()
    with django_assert_num_queries(1):
        desk.step(5)
    desk.open("xid_fatal")
    desk.step(5)
    desk.step(AGAIN.total_seconds())
    assert [[alert["labels"]["alertname"] for alert in each.json] for each in receiver.got] == [
        ["temp_high"],
        ["xid_fatal"],
        ["temp_high", "xid_fatal"],
    ]


def test_what_came_and_went_fires_for_a_while_so_that_it_is_heard_of(settings: Any) -> None:
    settings.ALERTMANAGER_URL = ["http://localhost:1"]
    desk = Desk()
    event = desk.open()
    desk.close(event)
    (alert,) = alerts_now(desk)
    assert alert["endsAt"] == (desk.now + FIRES_AT_LEAST).isoformat(timespec="milliseconds")


def test_a_new_event_wins_over_an_ended_one_like_it(settings: Any) -> None:
    settings.ALERTMANAGER_URL = ["http://localhost:1"]
    desk = Desk()
    desk.close(desk.open())
    desk.now += timedelta(minutes=3)
    desk.open()
    (alert,) = alerts_now(desk)
    assert alert["endsAt"] == (desk.now + LASTS).isoformat(timespec="milliseconds")


def test_when_the_severity_rises_the_milder_alert_is_over(
    manager: Alertmanager, receiver: Receiver, settings: Any
) -> None:
    settings.ALERTMANAGER_URL = [manager.url]
    desk = Desk()
    event = desk.open(severity="warning")
    desk.step()
    receiver.wait_for(1)
    Event.objects.filter(pk=event.pk).update(severity="critical")
    EventTransition.objects.create(event=event, kind="raised", at=desk.now, recorded=desk.now, severity="critical")
    desk.step()
    until(lambda: [alert["labels"]["severity"] for alert in manager.alerts()] == ["critical"])


def test_who_resolves_an_event_ends_its_alert(receiver: Receiver, settings: Any) -> None:
    settings.ALERTMANAGER_URL = [receiver.url]
    desk = Desk()
    event = desk.open()
    EventTransition.objects.update(recorded=desk.now - timedelta(hours=1))
    desk.step()
    resolve(event, "ann")
    desk.now = timezone.now()
    desk.step()
    assert receiver.got[-1].json[0]["endsAt"] <= desk.now.isoformat(timespec="milliseconds")
    desk.now += OVER_FOR + timedelta(seconds=1)
    before = len(receiver.got)
    desk.step()
    assert len(receiver.got) == before


def test_what_is_muted_quiet_or_too_mild_is_no_alert(receiver: Receiver, settings: Any) -> None:
    settings.ALERTMANAGER_URL = [receiver.url]
    desk = Desk()
    Mute.objects.create(rule="muted_rule", starts=desk.now, expires=desk.now + timedelta(hours=1))
    desk.open("muted_rule")
    desk.open("quiet_rule", quiet=True)
    desk.open("mild_rule", severity="info")
    desk.open("other_rule")
    desk.step()
    assert [alert["labels"]["alertname"] for each in receiver.got for alert in each.json] == ["other_rule"]


def test_hundreds_of_alerts_go_out_in_parts(manager: Alertmanager, settings: Any) -> None:
    settings.ALERTMANAGER_URL = [manager.url]
    desk = Desk()
    for number in range(300):
        desk.open(f"rule_{number}")
    desk.step()
    assert len(manager.alerts()) == 300


def test_hostile_names_are_labels_like_others(manager: Alertmanager, settings: Any) -> None:
    settings.ALERTMANAGER_URL = [manager.url]
    desk = Desk()
    evil = 'x"}\r\n\x1b{{ .Labels }}\u202e'
    desk.open(hostname=evil, pod="p" * 255, summary="<!channel> [x](https://evil.example)" + evil * 10)
    desk.step()
    assert desk.feed.failures == 0
    (alert,) = manager.alerts()
    assert alert["labels"]["hostname"] == 'x"}\\r\\n\\x1b{{ .Labels }}\\u202e'
    summary = alert["annotations"]["summary"]
    assert "‹!channel›" in summary
    assert not {"<", "[", "\n"} & set(summary)
    assert "://" not in summary


def test_tags_are_labels_and_replace_none_of_ours() -> None:
    event = Event(rule="r", entity_kind="host", entity="n", hostname="n", severity="critical")
    labels = labels_of(event, {"rack/row": "7", "severity": "low", "9": "x"})
    assert labels == {
        "alertname": "r",
        "severity": "critical",
        "service": "gpu-telemetry",
        "hostname": "n",
        "rack_row": "7",
        "_9": "x",
    }


def test_what_goes_wrong_is_said_without_the_login(receiver: Receiver, settings: Any, tmp_path: Path) -> None:
    settings.ALERTMANAGER_URL = [
        f"http://ann:s3cret@127.0.0.1:{free_port()}",
        f"http://ann:s3cret@127.0.0.1:{receiver.port}",
    ]
    receiver.answer = lambda request: (401, {})
    away, closed = configured_targets()
    for target, said in ((away, "no connection: "), (closed, "it answered 401 Unauthorized")):
        with pytest.raises(DeliveryError, match=said) as caught:
            send_alerts(target, open_pool(), [])
        assert "s3cret" not in f"{caught.value}{target.name}"
    no_file = tmp_path / "ca.pem"
    for path, content in ((no_file, None), (no_file, "no certificate")):
        if content:
            path.write_text(content)
        settings.ALERTMANAGER_TLS_CA = str(path)
        with pytest.raises(
            ChannelError, match=r"ALERTMANAGER_TLS_CA \(--alertmanager-tls-ca\): .* is not a file of certificates"
        ):
            open_pool()
