"""Configurations of collectors and streamers, from the settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings

from ingest.errors import SourceError
from ingest.shard import Shard
from telemetry_site.broker_address import broker_address

if TYPE_CHECKING:
    from ingest.collector.collector import CollectConfig
    from ingest.parts import Parts
    from ingest.rollups.service import RollupSettings
    from ingest.streamer.file import StreamConfig
    from ingest.streamer.live import LiveConfig, LiveSource


# Each service needs one or two of these, and some load much (numpy and pyarrow, aiohttp, the stores): so the functions
# import what they build.


def collect_config() -> CollectConfig:
    """The collector's configuration from django.conf.settings."""
    from ingest.collector.collector import CollectConfig
    from ingest.collector.limits import LimitsConfig

    return CollectConfig(
        collector_id=settings.COLLECTOR_ID,
        broker=broker_address(),
        state_dir=settings.STATE_DIR,
        start_offset=settings.START_OFFSET,
        flush_interval=settings.FLUSH_INTERVAL,
        retention=settings.RETENTION_PERIOD,
        placement_retention=settings.PLACEMENT_RETENTION,
        gpu_retention=settings.GPU_RETENTION,
        limits=LimitsConfig(
            gpus=settings.MAX_GPUS,
            new_gpus=settings.MAX_NEW_GPUS,
            metrics=settings.MAX_METRICS,
            new_metrics=settings.MAX_NEW_METRICS,
        ),
        rollups=rollup_settings(),
    )


def rollup_settings() -> RollupSettings:
    """How roll-ups are made, from django.conf.settings."""
    from ingest.rollups.roller import RollupConfig
    from ingest.rollups.service import RollupSettings
    from stores.rollups.open import get_rollups

    config = RollupConfig(
        raw_retention=settings.RETENTION_PERIOD,
        minute_retention=settings.RETENTION_1M,
        hour_retention=settings.RETENTION_1H,
    )
    return RollupSettings(open_rollups=get_rollups, config=config)


def _streamer_settings() -> dict[str, Any]:
    return {
        "broker": broker_address(),
        "state_dir": settings.STATE_DIR,
        "instance_id": settings.INSTANCE_ID,
        "batch_size": settings.BATCH_SIZE,
        "collect_interval": settings.COLLECT_INTERVAL,
        "batch_format": settings.BATCH_FORMAT,
    }


def stream_config(*, keeps: bool = True) -> StreamConfig:
    """The configuration of a streamer of captures from django.conf.settings; ``keeps``: it may write in the state folder."""
    from ingest.streamer.file import StreamConfig

    return StreamConfig(
        **_streamer_settings(),
        csv_path=settings.CSV_PATH,
        rate=settings.RATE,
        loop=settings.LOOP,
        timestamps=settings.TIMESTAMPS,
        retention=settings.RETENTION_PERIOD,
        zone=settings.CSV_TZ,
        columns=tuple(settings.CSV_COLUMNS),
        hostname=settings.CSV_HOSTNAME,
        shard=Shard(*settings.SHARD),
        follow=settings.FOLLOW,
        speed=settings.SPEED,
        parts=kept_parts(keeps=keeps),
    )


def live_config(*, once: bool = False) -> LiveConfig:
    """The configuration of a streamer of a live source from django.conf.settings."""
    from ingest.streamer.live import LiveConfig

    return LiveConfig(
        **_streamer_settings(), interval=settings.SCRAPE_INTERVAL, spool_bytes=settings.SPOOL_BYTES, once=once
    )


def kept_parts(*, keeps: bool = True) -> Parts:
    """The labels that tell rows of one GPU apart, as far as earlier runs found them."""
    from ingest.parts import Parts

    return Parts(settings.STATE_DIR / "parts" / f"{settings.INSTANCE_ID}.json", keeps=keeps)


def live_source(*, keeps: bool = True, truth: Path | None = None) -> LiveSource:
    """The live source that SOURCE names; ``keeps`` says whether it may write in the state folder. Raises SourceError.

    A synthetic fleet writes its faults to the file ``truth``.
    """
    shard = Shard(*settings.SHARD)
    if settings.SOURCE == "simulate":
        from ingest.simulator.fleet import METRIC_SETS, FleetShape
        from ingest.simulator.source import SimulateSource
        from ingest.simulator.truth import TruthFile

        shape = FleetShape(
            hosts=settings.SIM_HOSTS,
            gpus_per_host=settings.SIM_GPUS_PER_HOST,
            seed=settings.SIM_SEED,
            metrics=METRIC_SETS[settings.SIM_METRICS],
            faults=settings.SIM_FAULTS,
            scenario=settings.SIM_SCENARIO,
            fault_rate=settings.SIM_FAULT_RATE,
        )
        try:
            shape.planned()
        except ValueError as error:
            raise SourceError(f"SIM_FAULTS: {error}") from error
        return SimulateSource(
            shape,
            settings.SCRAPE_INTERVAL,
            shard,
            history=settings.SIM_HISTORY,
            truth=None if truth is None else TruthFile(truth, settings.INSTANCE_ID),
        )
    from ingest.exporter.scraper import ScrapeConfig, Scraper
    from ingest.exporter.targets import Targets

    config = ScrapeConfig(
        interval=settings.SCRAPE_INTERVAL,
        timeout=settings.SCRAPE_TIMEOUT,
        max_bytes=settings.SCRAPE_MAX_BYTES,
        token=settings.SCRAPE_TOKEN,
        user=settings.SCRAPE_USER,
        password=settings.SCRAPE_PASSWORD,
        ca_file=settings.SCRAPE_TLS_CA,
    )
    return Scraper(config, Targets(settings.TARGETS, shard), kept_parts(keeps=keeps))
