from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from stores.base import StoreError, StoreUnavailable
from stores.influxdb import InfluxStore
from stores.influxdb.client import InfluxConfig
from tests.influxd import Influxd
from tests.ports import free_port
from tests.stores.making import START, ask, gpu, held, one


def retention(influxd: Influxd, name: str) -> int:
    bucket = influxd.bucket(name)
    assert bucket is not None
    return int(bucket["retentionRules"][0]["everySeconds"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "localhost:8086"}, r"INFLUXDB_URL \(--influxdb-url\): 'localhost:8086' is not an address"),
        ({"url": "ftp://x"}, "INFLUXDB_URL"),
        ({"url": "http://"}, "INFLUXDB_URL"),
        ({"url": "http://x:port"}, "INFLUXDB_URL"),
        ({"url": "http://x:99999"}, "INFLUXDB_URL"),
        ({"url": "http://[::1"}, "INFLUXDB_URL"),
        ({"tls_ca": "/nowhere/ca.crt"}, r"INFLUXDB_TLS_CA \(--influxdb-tls-ca\): '/nowhere/ca.crt' is not a file of"),
        ({"tls_ca": __file__}, "INFLUXDB_TLS_CA"),
        ({"token": ""}, "INFLUXDB_TOKEN: not set, and STORAGE_TYPE=influxdb needs it"),
        ({"token": "a\nb"}, "INFLUXDB_TOKEN: holds characters"),
        ({"org": ""}, "INFLUXDB_ORG: not set"),
        ({"org": "\udcff"}, "INFLUXDB_ORG: holds characters"),
        ({"bucket": ""}, "INFLUXDB_BUCKET: not set"),
        ({"retention": 3599.0}, r"RETENTION_PERIOD \(--retention-period\): 3599s is too short: .* 1h at least"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_before_anything_is_asked(
    changes: dict[str, object], message: str
) -> None:
    config = InfluxConfig("http://127.0.0.1:1", "t", "o", "b")
    with pytest.raises(StoreError, match=message) as caught:
        InfluxStore(replace(config, **changes))  # type: ignore[arg-type]
    assert not caught.value.retriable
    assert "\n" not in str(caught.value)


def test_a_missing_bucket_is_made_with_the_retention(influxd: Influxd, influx_config: InfluxConfig) -> None:
    InfluxStore(replace(influx_config, retention=7200.0)).ping()
    assert retention(influxd, influx_config.bucket) == 7200


def test_a_store_that_is_made_asks_nothing_of_a_server_that_is_away() -> None:
    store = InfluxStore(InfluxConfig(f"http://127.0.0.1:{free_port()}", "t", "o", "b"))
    with pytest.raises(StoreUnavailable, match="connection refused"):
        store.ping()
    store.close()


def test_a_default_never_shortens_what_is_there(
    influxd: Influxd, influx_config: InfluxConfig, caplog: pytest.LogCaptureFixture
) -> None:
    InfluxStore(influx_config).ping()
    with caplog.at_level(logging.INFO):
        InfluxStore(replace(influx_config, retention=86400.0)).ping()
    assert retention(influxd, influx_config.bucket) == 0
    assert f"bucket {influx_config.bucket} keeps readings for ever: RETENTION_PERIOD is not set" in caplog.text


@pytest.mark.parametrize("seconds", [3600.0, 0.0])
def test_a_retention_that_is_given_is_set(
    influxd: Influxd, influx_config: InfluxConfig, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    InfluxStore(replace(influx_config, retention=7200.0)).ping()
    with caplog.at_level(logging.INFO):
        InfluxStore(replace(influx_config, retention=seconds, retention_is_given=True)).ping()
    assert retention(influxd, influx_config.bucket) == seconds
    assert "(before: for 2h)" in caplog.text


def test_a_wrong_token_is_named(influx_config: InfluxConfig) -> None:
    with pytest.raises(StoreError, match=r"INFLUXDB_TOKEN: InfluxDB at .* does not take this token") as caught:
        InfluxStore(replace(influx_config, token="wrong")).ping()
    assert not caught.value.retriable


def test_a_wrong_organization_is_named(influx_config: InfluxConfig) -> None:
    with pytest.raises(StoreError, match=r"INFLUXDB_ORG \(--influxdb-org\): .* no organization 'nobody'") as caught:
        InfluxStore(replace(influx_config, org="nobody")).ping()
    assert not caught.value.retriable


@pytest.mark.parametrize("rights", [[("read", "buckets"), ("read", "orgs")], [("read", "buckets")]])
def test_a_token_that_may_make_no_bucket_is_named(
    influxd: Influxd, influx_config: InfluxConfig, rights: list[tuple[str, str]]
) -> None:
    token = influxd.limited_token(*rights)
    with pytest.raises(
        StoreError, match=r"INFLUXDB_TOKEN: .* the token may not make bucket 'test-[0-9]+', which is not there"
    ):
        InfluxStore(replace(influx_config, token=token)).ping()
    assert influxd.bucket(influx_config.bucket) is None


def test_a_token_that_sees_nothing_else_is_enough_for_a_bucket_that_is_there(
    influxd: Influxd, influx_config: InfluxConfig
) -> None:
    InfluxStore(influx_config).ping()
    bucket = influxd.bucket(influx_config.bucket)
    assert bucket is not None
    rights = [
        {"action": action, "resource": {"type": "buckets", "id": bucket["id"], "orgID": bucket["orgID"]}}
        for action in ("read", "write")
    ]
    token = influxd.ask("POST", "/api/v2/authorizations", {"orgID": bucket["orgID"], "permissions": rights})["token"]
    store = InfluxStore(replace(influx_config, token=token))
    store.write([one(gpu(), START, U=1.0)])
    assert len(ask(store)) == 1
    assert held(store).readings == 1


def test_a_token_that_may_not_change_the_retention_is_named(influxd: Influxd, influx_config: InfluxConfig) -> None:
    InfluxStore(influx_config).ping()
    token = influxd.limited_token(("read", "buckets"))
    given = replace(influx_config, token=token, retention=7200.0, retention_is_given=True)
    with pytest.raises(StoreError, match="the token may not change how long bucket"):
        InfluxStore(given).ping()


def test_a_bucket_that_somebody_deletes_is_made_again(influxd: Influxd, influx_store: InfluxStore) -> None:
    influx_store.write([one(gpu(), START, U=1.0)])
    influxd.drop_bucket(influx_store.config.bucket)
    with pytest.raises(StoreUnavailable, match="not found"):
        influx_store.write([one(gpu(), START, U=1.0)])
    influx_store.write([one(gpu(), START, U=2.0)])
    assert [row.value for row in ask(influx_store)] == [2.0]
