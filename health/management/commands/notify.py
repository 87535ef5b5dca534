"""``manage.py notify``: who is notified, what is waiting, and a test message."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Count, Max, Min
from django.utils import timezone

from health.models import Notice
from health.notify.alertmanager import AlertTarget, configured_targets, open_pool, send_alerts, trial_alert
from health.notify.channels import configured_channels
from health.notify.delivery import ApprisePlug, open_plugs
from health.notify.errors import ChannelError, DeliveryError
from health.notify.heartbeat import Heart
from health.notify.messages import trial_message
from health.notify.threads import SENDING
from inventory.migrating import migrate_embedded
from readings.text import printable
from readings.times import spell_duration

_SECONDS = 75.0
_LISTED = timedelta(days=7)
NOBODY = "Nobody is notified: NOTIFY_URLS, ALERTMANAGER_URL and HEARTBEAT_URL are not set."


class Command(BaseCommand):
    """Lists what each channel has yet to send and what it gave up. With --test it sends one message by each."""

    help = "Show what is waiting to be sent about events of the fleet's health, or send a test message by each channel."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Add --test."""
        parser.add_argument(
            "--test", action="store_true", help="send a test message by each channel; exit status 1 if one fails"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the list, or the outcome of each test."""
        try:
            channels, targets = configured_channels(), configured_targets()
            plugs = open_plugs(channels, settings.PUBLIC_URL)
            pools = [open_pool() for _ in targets]
        except ChannelError as error:
            raise CommandError(str(error)) from None
        if not (channels or targets or settings.HEARTBEAT_URL):
            self.stdout.write(NOBODY)
        if options["test"]:
            self._test(plugs, list(zip(targets, pools, strict=True)))
            return
        migrate_embedded()  # the list may be asked for before any service has run
        for name in [channel.name for channel in channels]:
            self._list(name)
        unknown = Notice.objects.filter(sent=None).exclude(channel__in=[channel.name for channel in channels])
        for name in unknown.order_by("channel").values_list("channel", flat=True).distinct():
            self._list(name, " (not in NOTIFY_URLS)")
        for target in targets:
            self.stdout.write(f"{target.name}: gets all open events each minute; nothing waits for it")

    def _list(self, name: str, remark: str = "") -> None:
        notices, now = Notice.objects.filter(channel=name), timezone.now()
        waiting = notices.filter(sent=None).aggregate(count=Count("pk"), oldest=Min("created"), tried=Max("attempts"))
        text = f"{waiting['count']} waiting"
        if waiting["count"]:
            text += f", the oldest for {spell_duration((now - waiting['oldest']).total_seconds())}"
        if waiting["tried"]:
            text += f", tried {waiting['tried']} times"
        muted = notices.filter(sent=None).exclude(outcome="").count()
        if muted:
            text += f", {muted} of them muted or in maintenance"
        lost = notices.filter(outcome="given up", sent__gte=now - _LISTED).count()
        if lost:
            text += f"; {lost} given up in the last {_LISTED.days} days"
        last = notices.filter(outcome="sent").aggregate(last=Max("sent"))["last"]
        text += f"; last sent {last:%Y-%m-%d %H:%M:%S} UTC" if last else "; nothing sent yet"
        self.stdout.write(f"{name}{remark}: {text}")
        errors = notices.filter(sent=None).exclude(last_error="").order_by("-attempts")
        for error in dict.fromkeys(errors.values_list("last_error", flat=True)[:100]):
            self.stdout.write(f"    {printable(error)}")

    def _test(self, plugs: Sequence[ApprisePlug], targets: Sequence[tuple[AlertTarget, Any]]) -> None:
        message = trial_message(settings.PUBLIC_URL, timezone.now())
        tests: list[tuple[str, Callable[[], None]]] = []
        tests += [(plug.channel.name, partial(plug.send, message)) for plug in plugs]
        alerts = [trial_alert(timezone.now())]
        tests += [(target.name, partial(send_alerts, target, pool, alerts)) for target, pool in targets]
        if settings.HEARTBEAT_URL:
            tests.append(("HEARTBEAT_URL", _beat))
        failed = 0
        for name, test in tests:
            trouble = _outcome(name, test)
            failed += bool(trouble)
            self.stdout.write(f"{name}: {f'FAILED: {trouble}' if trouble else 'sent'}")
        if failed:
            raise CommandError(f"{failed} of {len(tests)} did not get the test message")


def _beat() -> None:
    trouble = Heart(settings.HEARTBEAT_URL, 60.0, lambda: True).beat()
    if trouble:
        raise DeliveryError(trouble)


def _outcome(name: str, test: Callable[[], None]) -> str:
    """Run it in a thread, which libraries log nothing in; returns what went wrong, or nothing."""
    found = [f"no answer for {_SECONDS:g} s"]

    def run() -> None:
        try:
            test()
        except DeliveryError as error:
            found[0] = str(error)
        except Exception as error:
            found[0] = type(error).__name__
        else:
            found[0] = ""

    thread = threading.Thread(target=run, name=f"{SENDING}{name}", daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return found[0]
