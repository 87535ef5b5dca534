"""inventory.sync.residences: residences grown from observations, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from inventory.models import GPU, Host
from inventory.sync.residences import HostAssignment, HostSlot, host_assignments, slot_of, update_residences
from inventory.sync.seen import NOTHING, Observation

START = datetime(2025, 7, 18, tzinfo=UTC)
HOSTS = {f"host-{n}": Host(pk=n, name=f"host-{n}", first_seen=START, last_seen=START) for n in (1, 2)}
ONE, TWO = HostSlot(1, 0), HostSlot(2, 0)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def row(slot: HostSlot) -> GPU:
    return GPU(id="GPU-a", host_id=slot.host_id, index=slot.slot, first_seen=START, last_seen=START)


def test_what_an_observation_leaves_out_is_as_before() -> None:
    observations = [
        Observation("", None, NOTHING, after(0), after(0)),
        Observation("host-2", None, NOTHING, after(1), after(1)),
        Observation("", 5, NOTHING, after(2), after(2)),
    ]
    assert [each.slot for each in host_assignments(observations, HOSTS, ONE)] == [ONE, TWO, HostSlot(2, 5)]
    assert [each.slot for each in host_assignments(observations, HOSTS, HostSlot(None, None))] == [
        HostSlot(2, None),
        HostSlot(2, 5),
    ]


def test_late_words_of_an_old_place_widen_it_and_move_nothing() -> None:
    known = update_residences(
        row(TWO), [], [HostAssignment(ONE, after(10), after(20)), HostAssignment(TWO, after(60), after(60))], after(10)
    )
    [changed] = update_residences(row(TWO), known, [HostAssignment(ONE, after(0), after(30))], after(60))
    assert (slot_of(changed), changed.since, changed.until) == (ONE, after(0), after(30))
