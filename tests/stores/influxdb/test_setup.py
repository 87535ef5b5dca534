from __future__ import annotations

import logging
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stores.base import StoreError, StoreUnavailable
from stores.influxdb import InfluxStore
from stores.influxdb.client import InfluxConfig
from stores.influxdb.setup import DAY, shard_duration
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
        ({"bucket": "/autogen"}, r"INFLUXDB_BUCKET \(--influxdb-bucket\): '/autogen' begins with a slash"),
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


def rule(influxd: Influxd, name: str) -> tuple[int, int]:
    bucket = influxd.bucket(name)
    assert bucket is not None
    return bucket["retentionRules"][0]["everySeconds"], bucket["retentionRules"][0]["shardGroupDurationSeconds"]


@pytest.mark.parametrize("days", [0, 0.125, 1, 1.9, 2, 30, 179, 180, 400])
def test_the_shards_of_a_retention_are_those_that_the_server_makes(
    influxd: Influxd, influx_config: InfluxConfig, days: float
) -> None:
    InfluxStore(replace(influx_config, retention=days * DAY)).ping()
    kept, shard = rule(influxd, influx_config.bucket)
    assert (kept, shard) == (days * DAY, shard_duration(int(days * DAY)))


@pytest.mark.parametrize(
    ("before", "after"), [(30, 0.5), (0, 0.125), (400, 7), (7, 0.0625), (1, 365), (1, 0), (3, 4), (0, 365)]
)
def test_a_bucket_that_was_made_takes_any_other_retention(
    influxd: Influxd, influx_config: InfluxConfig, before: float, after: float
) -> None:
    made = replace(influx_config, retention=before * DAY, retention_is_given=True)
    InfluxStore(made).ping()
    store = InfluxStore(replace(made, retention=after * DAY))
    store.ping()
    # As if it had been made so: few shards for a long retention, and none longer than a short one.
    assert rule(influxd, influx_config.bucket) == (after * DAY, shard_duration(int(after * DAY)))
    store.close()


@pytest.mark.parametrize(("after", "shard"), [(10, 2 * DAY), (1, DAY // 24)])
def test_a_shard_duration_that_somebody_chose_stays_while_it_can(
    influxd: Influxd, influx_config: InfluxConfig, after: int, shard: int
) -> None:
    org = influxd.ask("GET", f"/api/v2/orgs?org={influxd.org}")["orgs"][0]["id"]
    chosen = {"type": "expire", "everySeconds": 30 * DAY, "shardGroupDurationSeconds": 2 * DAY}
    influxd.ask("POST", "/api/v2/buckets", {"orgID": org, "name": influx_config.bucket, "retentionRules": [chosen]})
    InfluxStore(replace(influx_config, retention=after * DAY, retention_is_given=True)).ping()
    assert rule(influxd, influx_config.bucket) == (after * DAY, shard)


@pytest.mark.parametrize("name", ["{}/autogen", "{}/weekly", "{}/a/b", "{}"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_bucket_may_be_named_as_a_retention_policy_of_a_database(
    influxd: Influxd, influx_config: InfluxConfig, name: str, exists: bool
) -> None:
    config = replace(influx_config, bucket=name.format(influx_config.bucket))
    neighbour = InfluxStore(replace(influx_config, bucket=f"{influx_config.bucket}/neighbour"))
    neighbour.write([one(gpu(), START, U=9.0)])
    if exists:
        make(influxd, config.bucket)
    store = InfluxStore(config)
    store.write([one(gpu(), START, U=1.0)])
    assert [row.value for row in ask(store)] == [1.0]
    assert store.metric_names() == ["U"]
    assert store.apply_retention(START + 1) == 1
    assert ask(store) == []
    assert [row.value for row in ask(neighbour)] == [9.0]
    for each in (store, neighbour):
        each.close()
        influxd.drop_bucket(each.config.bucket)


def make(influxd: Influxd, name: str) -> str:
    org = influxd.ask("GET", f"/api/v2/orgs?org={influxd.org}")["orgs"][0]["id"]
    return str(influxd.ask("POST", "/api/v2/buckets", {"orgID": org, "name": name, "retentionRules": []})["id"])


def test_a_database_that_is_another_bucket_is_named(influxd: Influxd, influx_config: InfluxConfig) -> None:
    other = make(influxd, f"{influx_config.bucket}-other")
    bucket = make(influxd, influx_config.bucket)
    org = influxd.ask("GET", f"/api/v2/orgs?org={influxd.org}")["orgs"][0]["id"]
    mapping = {"orgID": org, "bucketID": other, "database": influx_config.bucket, "retention_policy": "autogen"}
    made = influxd.ask("POST", "/api/v2/dbrps", {**mapping, "default": True})
    try:
        with pytest.raises(
            StoreError, match=r"INFLUXDB_BUCKET .* another bucket than .*influx v1 dbrp create"
        ) as caught:
            InfluxStore(influx_config).ping()
        assert not caught.value.retriable
        assert bucket in str(caught.value)
        assert "\n" not in str(caught.value)
    finally:
        influxd.ask("DELETE", f"/api/v2/dbrps/{made['id']}?org={influxd.org}")
    InfluxStore(influx_config).ping()


def test_a_bucket_without_a_database_ends_the_start(influxd: Influxd, influx_config: InfluxConfig) -> None:
    # Before InfluxDB 2.1 a bucket had a database only if somebody had mapped one. Now this name has none.
    config = replace(influx_config, bucket=f"{influx_config.bucket}/")
    with pytest.raises(
        StoreError, match=r"INFLUXDB_BUCKET .* has bucket 'test-\d+/', but no database .*dbrp create"
    ) as caught:
        InfluxStore(config).ping()
    assert not caught.value.retriable
    influxd.drop_bucket(config.bucket)


@pytest.mark.parametrize("name", ["_mine", 'a"b'])
def test_a_bucket_that_the_server_does_not_make_is_named(influx_config: InfluxConfig, name: str) -> None:
    with pytest.raises(
        StoreError, match=r"INFLUXDB_BUCKET \(--influxdb-bucket\): .* bucket name .* is invalid"
    ) as caught:
        InfluxStore(replace(influx_config, bucket=name)).ping()
    assert not caught.value.retriable


@pytest.mark.parametrize(
    ("status", "headers", "body", "message"),
    [
        (200, {}, b"<html>a page</html>", "what answers at http://127.0.0.1:[0-9]+ is no InfluxDB 2"),
        (200, {}, b"[]", "is no InfluxDB 2"),
        (301, {"Location": "https://influxdb.example.com/"}, b"", "it is at https://influxdb.example.com/"),
        (404, {}, b"no such page", "404 no such page"),
        (400, {}, b"this is an HTTPS server", "400 this is an HTTPS server"),
    ],
)
def test_what_answers_and_is_no_influxdb_ends_the_start(
    influx_config: InfluxConfig, status: int, headers: dict[str, str], body: bytes, message: str
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            store = InfluxStore(replace(influx_config, url=f"http://127.0.0.1:{server.server_address[1]}"))
            with pytest.raises(StoreError, match=rf"INFLUXDB_URL \(--influxdb-url\): .*{message}") as caught:
                store.ping()
            store.close()
        finally:
            server.shutdown()
            thread.join()
    assert not caught.value.retriable
    assert "\n" not in str(caught.value)


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
