from __future__ import annotations

from broker.server.places import ConnectionPlaces, Guest


def taken(places: ConnectionPlaces, address: str = "10.0.0.1", gone: list[Guest] | None = None) -> Guest:
    guest = places.take(address)
    assert guest is not None
    if gone is not None:
        guest.leave = lambda: gone.append(guest)
    return guest


def test_the_oldest_that_has_not_asked_for_anything_makes_room() -> None:
    places = ConnectionPlaces(3, 3)
    gone: list[Guest] = []
    first, second, third = (taken(places, gone=gone) for _ in range(3))
    places.prove(first)
    taken(places)
    assert gone == [second]
    taken(places)
    assert gone == [second, third]
    assert (len(places), places.moved_on) == (3, 2)


def test_who_has_asked_keeps_its_place() -> None:
    places = ConnectionPlaces(2, 2)
    for _ in range(2):
        places.prove(taken(places))
    assert places.take("10.0.0.2") is None


def test_the_address_with_most_of_them_goes_first() -> None:
    places = ConnectionPlaces(4, 4)
    gone: list[Guest] = []
    other = taken(places, "10.0.0.2", gone)
    crowd = [taken(places, "10.0.0.1", gone) for _ in range(3)]
    for _ in range(5):
        taken(places, "10.0.0.1")
    assert gone == crowd
    assert other not in gone


def test_unproven_ones_have_few_of_the_places() -> None:
    places = ConnectionPlaces(100, 2)
    gone: list[Guest] = []
    first = taken(places, gone=gone)
    taken(places)
    taken(places)
    assert gone == [first]
    places.prove(taken(places))
    assert len(places) == 2


def test_a_place_is_freed_once() -> None:
    places = ConnectionPlaces(1, 1)
    guest = taken(places)
    places.free(guest)
    places.free(guest)
    places.prove(guest)
    assert len(places) == 0
    places.prove(taken(places))
    assert places.take("10.0.0.1") is None
