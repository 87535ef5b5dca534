"""How the pipeline is doing, with the broker there and away."""

from __future__ import annotations

import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from health.models import Notice, WatchState
from inventory.rollup_state import advance, lease_of, open_state
from inventory.rollup_touches import touch
from inventory.status import add_counts
from stores.base import Store
from stores.open import store_key
from tests.api.broker_thread import broker_in_thread
from tests.api.conftest import Api
from tests.health.building import make_event
from tests.ports import free_port

STATS = "/api/v1/stats"
STARTED = datetime(2025, 7, 18, 20, 0, tzinfo=UTC)


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_a_broker_that_is_away_is_told_in_the_answer(api: Api, fleet: Store, settings: Settings, host: str) -> None:
    settings.MQ_HOST, settings.MQ_PORT = host, free_port()
    body = api.get(STATS)
    assert body["broker"]["available"] is False
    assert body["broker"]["address"] == f"{host}:{settings.MQ_PORT}"
    assert str(settings.MQ_PORT) in body["broker"]["error"]
    assert "\n" not in body["broker"]["error"]
    assert body["broker"]["total_messages"] is None
    assert body["subscribers"] == []
    assert body["store"]["readings"] == 17


def test_a_broker_that_says_nothing_costs_little_time(api: Api, fleet: Store, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.MQ_HOST, settings.MQ_PORT = silent.getsockname()[:2]
        started = datetime.now(tz=UTC)
        assert api.get(STATS)["broker"]["available"] is False
        assert (datetime.now(tz=UTC) - started).total_seconds() < 10


def test_the_broker_and_its_subscribers(api: Api, fleet: Store, settings: Settings, tmp_path: Path) -> None:
    with broker_in_thread(tmp_path / "log", payloads=[b"{}"] * 5, fsync="never") as port:
        settings.MQ_HOST, settings.MQ_PORT = "127.0.0.1", port
        body = api.get(STATS)
        settings.WATCH_ID = "c1"
        assert api.get(STATS)["subscribers"][0]["judges"] is True
    broker = body["broker"]
    assert broker["available"] is True
    assert broker["error"] is None
    assert (broker["total_messages"], broker["oldest_offset"], broker["latest_offset"]) == (5, 0, 4)
    assert broker["subscriber_count"] == 1
    assert broker["bytes"] > 0
    assert broker["segments"] >= 1
    assert broker["uptime"] >= 0
    assert None not in [value for name, value in broker.items() if name != "error"]
    (subscriber,) = body["subscribers"]
    assert (subscriber["id"], subscriber["committed_offset"], subscriber["lag"]) == ("c1", 0, 4)
    assert subscriber["connected"] is True
    assert subscriber["judges"] is False


def test_a_broker_that_wants_another_token_is_told(api: Api, fleet: Store, settings: Settings, tmp_path: Path) -> None:
    settings.BROKER_TOKEN = "guess"
    with broker_in_thread(tmp_path / "log", fsync="never") as port:
        settings.MQ_HOST, settings.MQ_PORT = "127.0.0.1", port
        assert api.get(STATS)["broker"]["available"] is True  # a token that nobody asked for is no fault


def test_what_the_collectors_did(
    api: Api, fleet: Store, settings: Settings, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    settings.MQ_HOST, settings.MQ_PORT = "127.0.0.1", free_port()
    for name, refused in (
        ("c2", {"blank": 2, "bad_label": 5}),
        ("c1", {"blank": 1, "out_of_range": 4, "not_a_gpu": 6}),
    ):
        add_counts(name, started=STARTED, messages=3, readings_stored=100, refused=refused, committed_offset=2)
    with django_assert_max_num_queries(8):
        body = api.get(STATS)
    assert [collector["id"] for collector in body["collectors"]] == ["c1", "c2"]
    first = body["collectors"][0]
    assert first["started"] == "2025-07-18T20:00:00Z"
    assert (first["messages"], first["readings_stored"], first["committed_offset"]) == (3, 100, 2)
    assert (first["refused"], first["remarks"], first["passed_over"]) == (
        {"blank": 1, "out_of_range": 4},
        {},
        {"not_a_gpu": 6},
    )
    assert body["readings"] == {
        "stored": 200,
        "refused": {"blank": 3, "out_of_range": 4},
        "remarks": {"bad_label": 5},
        "passed_over": {"not_a_gpu": 6},
    }


def test_how_far_the_judging_of_health_is(
    api: Api, fleet: Store, settings: Settings, tmp_path: Path, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    settings.MQ_HOST, settings.MQ_PORT = "127.0.0.1", free_port()
    assert api.get(STATS)["watch"] is None
    now = timezone.now()
    state = WatchState.objects.create(pk=1)
    assert (api.get(STATS)["watch"]["judging"], api.get(STATS)["watch"]["updated"]) == (False, None)
    WatchState.objects.filter(pk=state.pk).update(
        holder="a", lease_until=now + timedelta(seconds=9), offset=2, judged=70, updated=now - timedelta(seconds=4)
    )
    event = make_event(severity="critical")
    Notice.objects.create(
        event=event, kind="opened", channel="m", key="a", created=now, due=now - timedelta(seconds=30)
    )
    Notice.objects.create(event=event, kind="opened", channel="n", key="a", created=now, due=now, sent=now)
    with broker_in_thread(tmp_path / "log", payloads=[b"{}"] * 5, fsync="never") as port:
        settings.MQ_PORT = port
        with django_assert_max_num_queries(12):
            watch = api.get(STATS)["watch"]
    assert (watch["judging"], watch["offset"], watch["lag"], watch["judged"]) == (True, 2, 2, 70)
    assert (watch["open_events"], watch["notices_waiting"]) == ({"critical": 1, "warning": 0, "info": 0}, 1)
    assert 4 <= watch["age_seconds"] < 30 <= watch["notices_overdue_seconds"] < 90
    settings.MQ_PORT = free_port()
    assert api.get(STATS)["watch"]["lag"] is None


def test_how_far_the_roll_ups_are(api: Api, fleet: Store, settings: Settings) -> None:
    settings.MQ_HOST, settings.MQ_PORT = "127.0.0.1", free_port()
    nothing = {"rolling": False, "lag_seconds": None, "minutes_waiting": 0, "hours_waiting": 0}
    reach = dict.fromkeys(("minutes_since", "minutes_until", "hours_since", "hours_until"))
    assert api.get(STATS)["rollups"] == {"off": None, **nothing, **reach}
    noon = datetime(2025, 7, 18, 12, 0, tzinfo=UTC)
    noon_ns = int(noon.timestamp()) * 10**9
    open_state(store_key(), noon_ns - 1)
    advance(store_key(), minutes_until_ns=noon_ns + 300 * 10**9, hours_until_ns=noon_ns, newest_ns=noon_ns)
    touch(store_key(), "1m", [noon_ns, noon_ns + 60 * 10**9], "a")
    touch(store_key(), "1h", [noon_ns], "a")
    lease_of(store_key()).take("a")
    told = api.get(STATS)["rollups"]
    assert told.pop("lag_seconds") == pytest.approx((timezone.now() - noon).total_seconds() - 300, abs=30)
    assert told == {
        "off": None,
        "rolling": True,
        "minutes_since": "2025-07-18T12:00:00Z",
        "minutes_until": "2025-07-18T12:05:00Z",
        "hours_since": "2025-07-18T12:00:00Z",
        "hours_until": None,
        "minutes_waiting": 2,
        "hours_waiting": 1,
    }
    settings.ROLLUPS = False
    assert api.get(STATS)["rollups"]["off"] == "ROLLUPS=false"


def test_what_the_store_holds(api: Api, fleet: Store, settings: Settings) -> None:
    settings.MQ_HOST, settings.MQ_PORT = "127.0.0.1", free_port()
    store = api.get(STATS)["store"]
    assert (store["type"], store["readings"], store["series"]) == ("sqlite", 17, 10)
    assert (store["oldest"], store["newest"]) == ("2025-07-18T20:32:34Z", "2025-07-18T20:42:35Z")
    assert store["newest_age_seconds"] > 0
    assert store["bytes"] > 0


def test_when_each_host_was_last_heard_of(api: Api, fleet: Store, settings: Settings) -> None:
    settings.MQ_HOST, settings.MQ_PORT = "127.0.0.1", free_port()
    hosts = api.get(STATS)["hosts"]
    assert [(host["name"], host["newest"]) for host in hosts] == [
        ("host-b", "2025-07-18T20:42:34Z"),
        ("host-a", "2025-07-18T20:42:35Z"),
    ]
    assert hosts[0]["age_seconds"] == pytest.approx(hosts[1]["age_seconds"] + 1)


def test_a_store_that_cannot_count_tells_the_rest_and_the_inventory_the_newest(
    api: Api, fleet: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.MQ_HOST, settings.MQ_PORT = "127.0.0.1", free_port()
    counted = fleet.stats()
    monkeypatch.setattr(
        type(fleet), "stats", lambda self: replace(counted, readings=None, shares=None, oldest_ns=None, newest_ns=None)
    )
    told = api.get(STATS)["store"]
    assert (told["readings"], told["series"], told["shares"], told["oldest"]) == (None, 10, None, None)
    assert told["newest"] == "2025-07-18T20:42:35Z"
    assert b"store_bytes" in (metrics := api.ask("/metrics").content)
    assert b"store_series 10.0" in metrics
    assert b"newest_reading_timestamp_seconds 1.752871355e+09" in metrics
    assert b"store_readings" not in metrics


def test_an_empty_store(api: Api, store: Store, db: None, settings: Settings) -> None:
    settings.MQ_HOST, settings.MQ_PORT = "127.0.0.1", free_port()
    told = api.get(STATS)["store"]
    assert (told["readings"], told["oldest"], told["newest"], told["newest_age_seconds"]) == (0, None, None, None)
