"""manage.py notify: what waits, and a test message by each channel."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from health.models import Notice
from tests.health.building import make_event
from tests.health.notify.receivers import Receiver
from tests.ports import free_port

pytestmark = pytest.mark.django_db(transaction=True)  # commands close the connection


def notify(*arguments: str) -> tuple[str, str]:
    """What it prints, and its error."""
    out = StringIO()
    try:
        call_command("notify", *arguments, stdout=out)
    except CommandError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), ""


def test_without_channels_it_says_so() -> None:
    assert notify() == ("Nobody is notified: NOTIFY_URLS, ALERTMANAGER_URL and HEARTBEAT_URL are not set.\n", "")
    assert notify("--test")[1] == ""


def test_one_message_by_each_and_the_outcome_of_each(receiver: Receiver, settings: Any) -> None:
    settings.PUBLIC_URL = "https://gpus.example.com"
    settings.NOTIFY_URLS = [f"[name=hook]{receiver.channel}", f"[name=away]json://user:s3cret@127.0.0.1:{free_port()}"]
    settings.ALERTMANAGER_URL = [receiver.url]
    settings.HEARTBEAT_URL = f"{receiver.url}/ping/s3cret"
    out, error = notify("--test")
    assert "hook: sent\n" in out
    assert "away: FAILED: A Connection error occurred sending JSON notification to ***." in out
    assert f"the Alertmanager at 127.0.0.1:{receiver.port}: sent\n" in out
    assert "HEARTBEAT_URL: sent\n" in out
    assert error == "1 of 4 did not get the test message"
    assert "s3cret" not in out + error
    hook, alert, ping = receiver.got
    assert hook.json["title"] == "TEST: GPU telemetry"
    assert "https://gpus.example.com" in hook.json["message"]
    assert alert.json[0]["labels"]["alertname"] == "TestMessage"
    assert ping.path == "/ping/s3cret"
    settings.NOTIFY_URLS = settings.NOTIFY_URLS[:1]
    assert notify("--test")[1] == ""


def test_what_waits_and_what_failed(receiver: Receiver, settings: Any) -> None:
    settings.NOTIFY_URLS = [f"[name=hook]{receiver.channel}", "[name=idle]json://localhost"]
    now, event = timezone.now(), make_event()
    times = {"event": event, "kind": "opened", "created": now - timedelta(hours=2), "due": now}
    Notice.objects.create(key="1", channel="hook", attempts=7, last_error="the service answered 500", **times)
    Notice.objects.create(key="2", channel="hook", outcome="muted", **times)
    Notice.objects.create(key="3", channel="hook", outcome="given up", sent=now, **times)
    Notice.objects.create(key="4", channel="old-channel", **times)
    out, error = notify()
    assert error == ""
    assert out.splitlines() == [
        "hook: 2 waiting, the oldest for 2h, tried 7 times, 1 of them muted or in maintenance; 1 given up in the last 7 days;"
        " nothing sent yet",
        "    the service answered 500",
        "idle: 0 waiting; nothing sent yet",
        "old-channel (not in NOTIFY_URLS): 1 waiting, the oldest for 2h; nothing sent yet",
    ]


def test_what_cannot_be_used_is_one_line(settings: Any) -> None:
    settings.NOTIFY_URLS = ["slack://s3cret"]
    assert notify()[1].startswith("NOTIFY_URLS: URL 1 is not as Apprise has those of slack://")


def test_it_lists_before_any_service_has_run(tmp_path: Path) -> None:
    own = {**os.environ, "STATE_DIR": str(tmp_path), "NOTIFY_URLS": "[name=hook]json://localhost"}
    done = subprocess.run([sys.executable, "manage.py", "notify"], env=own, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("hook: 0 waiting; nothing sent yet\n", 0)
