"""health.muting: which events nobody wants to hear of."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from health.models import Event, Mute
from health.muting import MuteError, MuteScope, Muting, Silence, load_muting, mute_for, muting_now, save_mute
from inventory.models import GPU, Host
from tests.health.building import NOON
from tests.inventory.building import UTIL, block, gpu, save

HOUR = timedelta(hours=1)


def event(**fields: Any) -> Event:
    given = {"rule": "temp_high", "entity_kind": "gpu", "entity": "GPU-a", "hostname": "host-1"} | fields
    return Event(**given)


def scope(**fields: Any) -> MuteScope:
    blank: dict[str, Any] = {
        "id": 1,
        "rule": "",
        "hostname": "",
        "gpu": "",
        "tag": "",
        "tag_value": "",
        "expires": NOON + HOUR,
    }
    return MuteScope(**(blank | fields))


TAGS: dict[str, Any] = {"host_tags": {"host-1": {"rack": "r1"}}, "gpu_tags": {"GPU-a": {"team": "ml"}}}


@pytest.mark.parametrize(
    ("mute", "fits"),
    [
        ({"rule": "temp_high"}, True),
        ({"rule": "ecc_dbe"}, False),
        ({"hostname": "host-1"}, True),
        ({"hostname": "host-2"}, False),
        ({"gpu": "GPU-a"}, True),
        ({"gpu": "GPU-b"}, False),
        ({"tag": "rack", "tag_value": "r1"}, True),
        ({"tag": "rack", "tag_value": "r2"}, False),
        ({"tag": "team", "tag_value": "ml"}, True),
        ({"tag": "row", "tag_value": "r1"}, False),
        ({"rule": "temp_high", "hostname": "host-1", "gpu": "GPU-a", "tag": "rack", "tag_value": "r1"}, True),
        ({"rule": "temp_high", "hostname": "host-2", "gpu": "GPU-a"}, False),
        ({}, True),
    ],
)
def test_a_mute_fits_where_all_that_it_names_does(mute: dict[str, Any], fits: bool) -> None:
    muting = Muting(mutes=(scope(**mute),), **TAGS)
    assert muting.silence_of(event()) == (Silence("muted", NOON + HOUR) if fits else None)


def test_what_a_gpu_is_muted_for_holds_for_its_instances_and_not_the_other_way() -> None:
    board, instance = event(), event(entity="GPU-a:3")
    of_board, of_instance = Muting(mutes=(scope(gpu="GPU-a"),)), Muting(mutes=(scope(gpu="GPU-a:3"),))
    assert of_board.silence_of(instance) is not None
    assert of_instance.silence_of(instance) is not None
    assert of_instance.silence_of(board) is None
    assert Muting(gpus_in_maintenance={"GPU-a"}).silence_of(instance) == Silence("maintenance")
    assert Muting(mutes=(scope(tag="team", tag_value="ml"),), **TAGS).silence_of(instance) is not None


def test_a_slot_or_a_host_is_no_gpu() -> None:
    slot = event(rule="gpu_missing", entity_kind="slot", entity="host-1/6")
    assert Muting(mutes=(scope(gpu="host-1/6"),)).silence_of(slot) is not None
    assert Muting(gpus_in_maintenance={"host-1/6"}).silence_of(slot) is None
    assert Muting(hosts_in_maintenance={"host-1"}).silence_of(slot) == Silence("maintenance")
    fleet = event(rule="fleet_idle", entity_kind="fleet", entity="", hostname="")
    assert Muting(mutes=(scope(hostname="host-1"),), hosts_in_maintenance={""}).silence_of(fleet) is None


def test_of_several_mutes_the_longest_counts_and_maintenance_above_all() -> None:
    mutes = (scope(expires=NOON + 2 * HOUR), scope(), scope(rule="ecc_dbe", expires=NOON + 9 * HOUR))
    assert Muting(mutes=mutes).silence_of(event()) == Silence("muted", NOON + 2 * HOUR)
    assert Muting(mutes=mutes, hosts_in_maintenance={"host-1"}).silence_of(event()) == Silence("maintenance")


def test_of_many_mutes_only_those_are_looked_at_that_may_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    mutes = tuple(scope(gpu=f"GPU-{n}") for n in range(500)) + tuple(scope(hostname=f"node-{n}") for n in range(500))
    muting = Muting(mutes=(*mutes, scope(gpu="GPU-a", rule="temp_high"), scope(tag="rack", tag_value="r1")), **TAGS)
    looked_at: list[MuteScope] = []
    fits = Muting.fits

    def counted(self: Muting, mute: MuteScope, event: Event) -> bool:
        looked_at.append(mute)
        return fits(self, mute, event)

    monkeypatch.setattr(Muting, "fits", counted)
    assert muting.silence_of(event()) is not None
    assert len(looked_at) == 2


@pytest.mark.django_db
def test_so_many_mutes_may_be_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("health.muting.MOST_MUTES", 2)
    now = timezone.now()
    Mute.objects.create(rule="over", starts=now - HOUR, expires=now)
    for _ in range(2):
        save_mute(Mute(rule="temp_high", starts=now, expires=now + HOUR))
    with pytest.raises(MuteError, match="more than 2 mutes"):
        save_mute(Mute(rule="temp_high", starts=now, expires=now + HOUR))
    assert Mute.objects.count() == 3


@pytest.mark.django_db
def test_only_mutes_of_now_count_and_tags_are_read_for_those_that_name_one(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    save(block(gpu(), 0, {UTIL: 1.0}), block(gpu("GPU-b", gpu_id=1), 0, {UTIL: 1.0}))
    Host.objects.update(tags={"rack": "r1"})
    GPU.objects.filter(pk="GPU-b").update(asset_state="maintenance", tags={"team": "ml"})
    now = timezone.now()
    Mute.objects.create(rule="over", starts=now - 2 * HOUR, expires=now - HOUR)
    Mute.objects.create(rule="later", starts=now + HOUR, expires=now + 2 * HOUR)
    Mute.objects.create(rule="now", starts=now - HOUR, expires=now + HOUR)
    with django_assert_num_queries(3):
        muting = load_muting()
    assert [mute.rule for mute in muting.mutes] == ["now"]
    assert muting.silence_of(event(entity="GPU-b")) == Silence("maintenance")
    assert (muting.host_tags, muting.gpu_tags) == ({}, {})
    Mute.objects.create(tag="rack", tag_value="r1", starts=now - HOUR, expires=now + HOUR)
    with django_assert_num_queries(5):
        muting = muting_now()
    assert (muting.host_tags, muting.gpu_tags) == ({"host-1": {"rack": "r1"}}, {"GPU-b": {"team": "ml"}})
    assert muting.silence_of(event(rule="anything")) == Silence("muted", now + HOUR)


@pytest.mark.parametrize(
    ("fields", "scope_of_mute"),
    [
        ({}, "temp_high · GPU-a"),
        ({"rule": "gpu_missing", "entity_kind": "slot", "entity": "host-1/6"}, "gpu_missing · host-1/6"),
        ({"rule": "host_stale", "entity_kind": "host", "entity": "host-1"}, "host_stale · host-1"),
        ({"rule": "fleet_idle", "entity_kind": "fleet", "entity": "", "hostname": ""}, "fleet_idle"),
        ({"entity_kind": "slot", "entity": "h" * 250 + "/6", "hostname": "h" * 250}, "temp_high · " + "h" * 250),
    ],
)
def test_a_mute_for_an_event_covers_what_the_event_is_about(fields: dict[str, Any], scope_of_mute: str) -> None:
    made = mute_for(event(**fields), HOUR, "ada", "fan", NOON)
    assert str(made) == scope_of_mute
    assert (made.starts, made.expires, made.created_by, made.note) == (NOON, NOON + HOUR, "ada", "fan")
    values = {name: getattr(made, name) for name in ("rule", "hostname", "gpu")}
    assert Muting(mutes=(scope(**values),)).silence_of(event(**fields)) is not None
