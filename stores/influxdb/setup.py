"""Checks an InfluxDB before first use: server, token, organization, bucket and retention."""

from __future__ import annotations

import logging
import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from stores.base import StoreError, StoreUnavailable
from stores.influxdb.answers import InfluxRefused, NoSuchBucket, Redirected
from stores.influxdb.client import PING_TIMEOUT, InfluxConfig, InfluxConnection
from stores.influxdb.line_protocol import GPU

logger = logging.getLogger(__name__)

SHORTEST_RETENTION = 3600.0
DAY = 86400


def check_config(config: InfluxConfig) -> None:
    """Raise StoreError, with a line that names the setting, for a configuration that can never work."""
    try:
        parts = urlsplit(config.url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise StoreError(f"INFLUXDB_URL (--influxdb-url): {config.url!r} is not an address: use http://host:8086")
    if config.tls_ca:
        try:
            ssl.create_default_context(cafile=config.tls_ca)
        except (OSError, ValueError) as error:
            raise StoreError(
                f"INFLUXDB_TLS_CA (--influxdb-tls-ca): {config.tls_ca!r} is not a file of certificates: {error}"
            ) from error
    for name, value in (
        ("INFLUXDB_TOKEN", config.token), ("INFLUXDB_ORG", config.org), ("INFLUXDB_BUCKET", config.bucket),
    ):  # fmt: skip
        if not value:
            raise StoreError(f"{name}: not set, and STORAGE_TYPE=influxdb needs it")
        if not value.isprintable() or (name == "INFLUXDB_TOKEN" and not value.isascii()):
            raise StoreError(f"{name}: holds characters that cannot be in it")
    if config.bucket.startswith("/"):
        raise StoreError(
            f"INFLUXDB_BUCKET (--influxdb-bucket): {config.bucket!r} begins with a slash, so it is in no database: use "
            "a name, or database/policy"
        )
    if 0 < config.retention < SHORTEST_RETENTION:
        raise StoreError(
            f"{_retention_setting(config)}: {config.retention:g}s is too short: InfluxDB keeps readings for 1h at least; use 1h "
            "or more, or 0 for ever"
        )


def prepare(connection: InfluxConnection) -> None:
    """Make the bucket if it is missing, and set the retention that the settings give.

    Raises StoreUnavailable while the server does not answer, and StoreError with one line for a wrong token or
    organization, or a token without the rights.
    """
    try:
        connection.request("GET", "/health", timeout=PING_TIMEOUT)
    except (Redirected, InfluxRefused) as error:
        raise StoreError(f"INFLUXDB_URL (--influxdb-url): {error}") from error
    bucket = find_bucket(connection)
    if bucket is None:
        _make_bucket(connection)
        bucket = find_bucket(connection)
    else:
        _set_retention(connection, bucket)
    if bucket is not None:
        _check_mapping(connection, bucket)


class Preparation:
    """Prepares a bucket before the first request to it, and again after it was deleted. Safe for threads, and in the child of a fork."""

    def __init__(self, connection: InfluxConnection) -> None:
        self._connection = connection
        self._is_done = False
        self._locks: dict[int, threading.Lock] = {}  # by process: a thread of the parent may hold its own at a fork

    @contextmanager
    def done(self) -> Iterator[None]:
        """Runs the block once server and bucket have been checked. Raises what prepare() raises."""
        if not self._is_done:
            with self._locks.setdefault(os.getpid(), threading.Lock()):
                if not self._is_done:
                    prepare(self._connection)
                    self._is_done = True
        try:
            yield
        except NoSuchBucket:
            # Deleted meanwhile: the next call makes it again.
            self._is_done = False
            raise


def shard_duration(retention: int) -> int:
    """Seconds of the shard groups that InfluxDB makes for this retention (seconds, 0 for ever), unless told otherwise.

    Source: influxdb 2, v1/services/meta/data.go, shardGroupDuration.
    """
    if 0 < retention < 2 * DAY:
        return DAY // 24
    return DAY if 0 < retention < 180 * DAY else 7 * DAY


def _set_retention(connection: InfluxConnection, bucket: dict[str, Any]) -> None:
    config = connection.config
    wanted = int(config.retention)
    rule: dict[str, Any] = next(iter(bucket.get("retentionRules") or ()), {})
    current, shard = int(rule.get("everySeconds", 0)), int(rule.get("shardGroupDurationSeconds", 0))
    if wanted == current:
        return
    if not config.retention_is_given:
        logger.info(
            "bucket %s keeps readings %s: %s is not set, so that stays",
            config.bucket,
            _spell(current),
            config.retention_setting,
        )
        return
    changed: dict[str, Any] = {"type": "expire", "everySeconds": wanted}
    # The server refuses a retention shorter than a shard group. A duration that somebody chose stays where it can.
    if shard and (shard == shard_duration(current) or 0 < wanted < shard):
        changed["shardGroupDurationSeconds"] = shard_duration(wanted)
    try:
        connection.request("PATCH", f"/api/v2/buckets/{bucket['id']}", body={"retentionRules": [changed]})
    except (InfluxRefused, StoreUnavailable) as error:
        what = f"change how long bucket {config.bucket!r} keeps readings ({_spell(current)})"
        raise _may_not(error, what, connection, _retention_setting(config)) from error
    logger.info("bucket %s now keeps readings %s (before: %s)", config.bucket, _spell(wanted), _spell(current))


def find_bucket(connection: InfluxConnection) -> dict[str, Any] | None:
    """The bucket as the server describes it. Raises StoreError for a wrong token or organization."""
    config = connection.config
    try:
        answer = connection.request_json("GET", "/api/v2/buckets", query={"org": config.org, "name": config.bucket})
    except NoSuchBucket:
        return None
    except StoreUnavailable as error:
        if "INFLUXDB_TOKEN" not in str(error):
            raise
        raise StoreError(f"INFLUXDB_TOKEN: {connection.name} does not take this token") from error
    except InfluxRefused as error:
        if error.status == 404:
            raise StoreError(
                f"INFLUXDB_ORG (--influxdb-org): {connection.name} has no organization {config.org!r}, or the token is "
                "not for it"
            ) from error
        raise
    found: list[dict[str, Any]] = answer.get("buckets") or []
    return found[0] if found else None


def _make_bucket(connection: InfluxConnection) -> None:
    config = connection.config
    what = f"make bucket {config.bucket!r}, which is not there"
    try:
        orgs = connection.request_json("GET", "/api/v2/orgs", query={"org": config.org}).get("orgs")
        if not orgs:
            # The search for the bucket found the organization, so this token has no right to see it.
            raise _token_may_not(what, connection)
        rules = [{"type": "expire", "everySeconds": int(config.retention)}]
        body = {"orgID": orgs[0]["id"], "name": config.bucket, "retentionRules": rules}
        connection.request("POST", "/api/v2/buckets", body=body)
    except InfluxRefused as error:
        if error.status == 422 and find_bucket(connection) is not None:
            return  # another process was faster
        raise _may_not(error, what, connection, "INFLUXDB_BUCKET (--influxdb-bucket)") from error
    except StoreUnavailable as error:
        raise _may_not(error, what, connection, "INFLUXDB_BUCKET (--influxdb-bucket)") from error
    logger.info("made bucket %s, which keeps readings %s", config.bucket, _spell(int(config.retention)))


def _check_mapping(connection: InfluxConnection, bucket: dict[str, Any]) -> None:
    """Raise StoreError if InfluxQL, which reads the bucket, has no database or another bucket under its name."""
    name = connection.config.bucket
    database = connection.config.database
    shown = f"database {database['db']!r}, retention policy {database.get('rp', 'autogen')!r}"
    how = f"map it with: influx v1 dbrp create --bucket-id {bucket['id']} --db {database['db']} --rp {database.get('rp', 'autogen')}"
    query = {"orgID": bucket["orgID"], "db": database["db"]}
    try:
        mappings = connection.request_json("GET", "/api/v2/dbrps", query=query).get("content") or []
    except (InfluxRefused, StoreUnavailable) as error:
        if isinstance(error, StoreUnavailable) and "INFLUXDB_TOKEN" not in str(error):
            raise
        mappings = []  # the token may not see them
    policy = database.get("rp")
    found = [each for each in mappings if (each["retention_policy"] == policy if policy else each["default"])]
    if found and all(each["bucketID"] != bucket["id"] for each in found):
        raise StoreError(
            f"INFLUXDB_BUCKET (--influxdb-bucket): {connection.name} has another bucket than {name!r} as {shown}: {how}, "
            "or use another bucket"
        )
    try:
        connection.query(f'SELECT "{GPU}" FROM "{GPU}" LIMIT 1', {})  # noqa: S608 - a name of ours
    except NoSuchBucket as error:
        raise StoreError(
            f"INFLUXDB_BUCKET (--influxdb-bucket): {connection.name} has bucket {name!r}, but no {shown} to query it: {how}"
        ) from error


def _may_not(error: StoreError, what: str, connection: InfluxConnection, setting: str) -> StoreError:
    """An error that names the missing right, if that is the cause; else the setting that is refused, or the error itself."""
    if isinstance(error, InfluxRefused) and error.status not in {401, 403, 404}:
        return StoreError(f"{setting}: {error}")
    return _token_may_not(what, connection) if not error.retriable or "INFLUXDB_TOKEN" in str(error) else error


def _token_may_not(what: str, connection: InfluxConnection) -> StoreError:
    return StoreError(
        f"INFLUXDB_TOKEN: {connection.name}: the token may not {what}: do that by hand, or use one that may"
    )


def _retention_setting(config: InfluxConfig) -> str:
    return f"{config.retention_setting} (--{config.retention_setting.lower().replace('_', '-')})"


def _spell(seconds: int) -> str:
    return f"for {seconds / 3600:g}h" if seconds else "for ever"
