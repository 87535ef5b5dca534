"""The configuration of a watch, from the settings."""

from __future__ import annotations

from django.conf import settings
from django.core.management.base import CommandError
from django.utils import timezone

from health.models import Event, EventTransition
from health.notify.beside import check_settings, run_beside
from health.notify.errors import ChannelError
from health.notify.outbox import post
from health.rules.model import Rules
from health.usage.meter import UsageMeter
from health.usage.packing import Period
from health.usage.saving import open_meter, save_usage
from health.watch.watcher import WatchConfig
from telemetry_site.broker_address import broker_address


def watch_config(rules: Rules) -> WatchConfig:
    """The configuration. Raises CommandError for TLS files and addresses of notifications that cannot be used."""
    try:
        check_settings()
    except ChannelError as error:
        raise CommandError(str(error)) from None
    return WatchConfig(
        watch_id=settings.WATCH_ID,
        broker=broker_address(),
        rules=rules,
        make_meter=open_meter,
        post=_post,
        save_usage=_save_usage,
        most_gpus=settings.MAX_GPUS,
        beside=(run_beside,),
    )


def _post(steps: list[tuple[Event, EventTransition]]) -> None:
    post(steps)


def _save_usage(meter: UsageMeter) -> list[Period]:
    return save_usage(meter, timezone.now())
