"""The InfluxDB that the settings name."""

from __future__ import annotations

from django.conf import settings

from stores.influxdb.client import InfluxConfig


def influx_config() -> InfluxConfig:
    """Server, token, organization and the bucket of the readings."""
    return InfluxConfig(
        url=settings.INFLUXDB_URL,
        tls_ca=settings.INFLUXDB_TLS_CA,
        token=settings.INFLUXDB_TOKEN,
        org=settings.INFLUXDB_ORG,
        bucket=settings.INFLUXDB_BUCKET,
        retention=settings.RETENTION_PERIOD,
        retention_is_given=settings.RETENTION_PERIOD_IS_GIVEN,
    )
