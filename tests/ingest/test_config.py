from __future__ import annotations

from pathlib import Path

from pytest_django import Settings

from broker.client.address import BrokerAddress
from ingest.collector.collector import CollectConfig
from ingest.collector.limits import LimitsConfig
from ingest.config import collect_config
from ingest.rollups.roller import RollupConfig
from ingest.rollups.service import RollupSettings
from stores.rollups.open import get_rollups


def test_every_setting_of_a_collector_reaches_it(settings: Settings, tmp_path: Path) -> None:
    settings.COLLECTOR_ID = "c7"
    settings.MQ_HOST, settings.MQ_PORT, settings.BROKER_TOKEN = "mq", 9123, "secret"
    settings.STATE_DIR = tmp_path
    settings.START_OFFSET, settings.FLUSH_INTERVAL, settings.RETENTION_PERIOD = 5, 2.5, 60.0
    settings.PLACEMENT_RETENTION, settings.GPU_RETENTION = 90.0, 80.0
    settings.MAX_GPUS, settings.MAX_NEW_GPUS, settings.MAX_METRICS, settings.MAX_NEW_METRICS = 40, 30, 20, 10
    settings.RETENTION_1M, settings.RETENTION_1H = 70.0, 0.0
    assert collect_config() == CollectConfig(
        collector_id="c7",
        broker=BrokerAddress(host="mq", port=9123, token="secret"),
        state_dir=tmp_path,
        start_offset=5,
        flush_interval=2.5,
        retention=60.0,
        placement_retention=90.0,
        gpu_retention=80.0,
        limits=LimitsConfig(gpus=40, new_gpus=30, metrics=20, new_metrics=10),
        rollups=RollupSettings(
            open_rollups=get_rollups,
            config=RollupConfig(raw_retention=60.0, minute_retention=70.0, hour_retention=0.0),
        ),
    )
