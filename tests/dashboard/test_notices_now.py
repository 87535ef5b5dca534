"""dashboard.notices_now: what waits for its channels, and how the pipeline's page says it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from dashboard.notices_now import ChannelNow, channels_now, channels_or_why_not
from health.models import Notice, WatchState
from tests.dashboard.reading import html, part
from tests.health.building import NOON, make_event

pytestmark = pytest.mark.django_db


def notice(number: int, **fields: object) -> None:
    given: dict[str, object] = {"kind": "opened", "channel": "ops", "key": str(number), "created": NOON, "due": NOON}
    Notice.objects.create(event=make_event(subject=str(number)), **(given | fields))


def test_notices_are_counted_by_channel() -> None:
    now = timezone.now()
    notice(1)
    notice(2, attempts=3, last_error="it answers 500", created=NOON - timedelta(hours=1))
    notice(3, sent=now, outcome="sent")
    notice(4, sent=now, outcome="given up")
    notice(5, sent=now - timedelta(days=2), outcome="sent")
    notice(6, sent=now, outcome="muted", channel="mail")
    ops = ChannelNow("ops", 2, 1, NOON - timedelta(hours=1), 1, 1, "it answers 500")
    assert channels_now() == [ChannelNow("mail"), ops]


def test_channels_that_have_sent_nothing_yet_are_there(settings: Settings) -> None:
    settings.NOTIFY_URLS = ("[name=pager]json://127.0.0.1/x",)
    assert channels_now() == [ChannelNow("pager")]


def test_a_setting_that_cannot_be_read_is_said(settings: Settings) -> None:
    settings.NOTIFY_URLS = ("no url",)
    channels, why_not = channels_or_why_not()
    assert channels == []
    assert "NOTIFY_URLS" in why_not


def test_the_pipeline_says_what_fails(client: Client) -> None:
    notice(1, attempts=1, last_error="<b>it answers 500</b>")
    body = html(client, "/pipeline")
    assert "ops 1 ▲ 1 2026-03-01 12:00:00 0 0 <b>it answers 500</b>" in part(body, "watch")
    assert "▲ 1 notice failing" in part(body, "tiles")
    assert "<b>it answers" not in body


def test_the_pipeline_says_who_judges_and_when_nobody_is_notified(client: Client, settings: Settings) -> None:
    settings.NOTIFY_URLS, settings.ALERTMANAGER_URL = (), ""
    assert "has never run here" in part(html(client, "/pipeline"), "watch")
    state = WatchState.objects.create(
        pk=1, holder="watch-1", lease_until=timezone.now() + timedelta(minutes=1), updated=NOON, offset=41, judged=1234
    )
    text = part(html(client, "/pipeline"), "watch")
    assert "Judging yes, by watch-1 Readings judged 1,234 Up to message 41" in text
    assert "Nobody is notified" in text
    state.lease_until = NOON
    state.save()
    text = part(html(client, "/pipeline"), "watch")
    assert "does not run since 2026-03-01 12:00:00" in text
    assert "Judging no" in text
