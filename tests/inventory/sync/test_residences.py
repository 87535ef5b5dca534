"""inventory.sync.residences: residences grown from stays, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from inventory.models import GPU, Host
from inventory.sync.residences import Place, Visit, place_of, update_residences, visits_of
from inventory.sync.seen import NOTHING, Stay

START = datetime(2025, 7, 18, tzinfo=UTC)
HOSTS = {f"host-{n}": Host(pk=n, name=f"host-{n}", first_seen=START, last_seen=START) for n in (1, 2)}
ONE, TWO = Place(1, 0), Place(2, 0)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def row(place: Place) -> GPU:
    return GPU(id="GPU-a", host_id=place.host_id, index=place.slot, first_seen=START, last_seen=START)


def test_what_a_stay_leaves_out_is_as_before() -> None:
    stays = [
        Stay("", None, NOTHING, after(0), after(0)),
        Stay("host-2", None, NOTHING, after(1), after(1)),
        Stay("", 5, NOTHING, after(2), after(2)),
    ]
    assert [visit.place for visit in visits_of(stays, HOSTS, ONE)] == [ONE, TWO, Place(2, 5)]
    assert [visit.place for visit in visits_of(stays, HOSTS, Place(None, None))] == [Place(2, None), Place(2, 5)]


def test_a_move_closes_one_residence_and_opens_another() -> None:
    [first] = update_residences(row(ONE), [], [Visit(ONE, after(0), after(5))], after(0))
    assert (place_of(first), first.since, first.until) == (ONE, after(0), None)
    changed = update_residences(row(TWO), [first], [Visit(TWO, after(60), after(70))], after(50))
    assert {place_of(each): (each.since, each.until) for each in changed} == {
        ONE: (after(0), after(50)),
        TWO: (after(60), None),
    }
    assert update_residences(row(TWO), changed, [Visit(TWO, after(60), after(70))], after(70)) == []


def test_late_words_of_an_old_place_widen_it_and_move_nothing() -> None:
    known = update_residences(
        row(TWO), [], [Visit(ONE, after(10), after(20)), Visit(TWO, after(60), after(60))], after(10)
    )
    [changed] = update_residences(row(TWO), known, [Visit(ONE, after(0), after(30))], after(60))
    assert (place_of(changed), changed.since, changed.until) == (ONE, after(0), after(30))
