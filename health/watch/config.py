"""The configuration of a watch, from the settings."""

from __future__ import annotations

from django.conf import settings

from health.models import Event, EventTransition
from health.rules.model import Rules
from health.usage.meter import UsageMeter
from health.watch.watcher import WatchConfig
from telemetry_site.broker_address import broker_address


def watch_config(rules: Rules) -> WatchConfig:
    """The configuration. Raises CommandError for TLS files that cannot be used."""
    return WatchConfig(
        watch_id=settings.WATCH_ID,
        broker=broker_address(),
        rules=rules,
        make_meter=UsageMeter.load,
        post=_post,
        save_usage=_save_usage,
        most_gpus=settings.MAX_GPUS,
    )


def _post(steps: list[tuple[Event, EventTransition]]) -> None:
    """Nobody is notified yet."""


def _save_usage(meter: UsageMeter) -> None:
    """Hours that are over are not kept yet."""
