"""Which notices go out together."""

from __future__ import annotations

from datetime import timedelta

from health.models import Event, Notice
from health.notify.batching import LONGEST_CATCHING_UP, Batch, Budget, budget_of, join_by_entity, next_batch
from health.notify.outbox import LATE
from tests.health.building import NOON

WAIT = timedelta(seconds=30)
PLENTY = Budget(100, 100)


def notice(number: int, severity: str = "warning", created: float = 0.0, *, late: bool = False) -> Notice:
    when = NOON + timedelta(seconds=created)
    event = Event(pk=number, severity=severity)
    return Notice(pk=number, event=event, created=when, due=when + WAIT, late=late)


def batch(notices: list[Notice], groups: dict[int, str], seconds: float, budget: Budget = PLENTY) -> Batch | None:
    by_event = {number: (group,) for number, group in groups.items()}
    return next_batch(notices, by_event, WAIT, budget, NOON + timedelta(seconds=seconds))


def numbers(found: Batch | None) -> list[int]:
    return sorted(each.event_id for each in found.notices) if found else []


def test_a_group_waits_for_its_first_notice_and_takes_the_others_along() -> None:
    notices, groups = [notice(1), notice(2, created=20), notice(3)], {1: "a", 2: "a", 3: "b"}
    assert batch(notices, groups, 29) is None
    assert numbers(batch(notices, groups, 30)) == [1, 2]


def test_the_worst_goes_first() -> None:
    assert numbers(batch([notice(1), notice(2, "critical")], {1: "a", 2: "b"}, 30)) == [2]


def test_many_groups_at_once_are_one_digest() -> None:
    ten = [notice(number) for number in range(10)]
    groups = {number: str(number) for number in range(11)}
    assert batch(ten, groups, 30) == Batch([ten[0]], False)
    found = batch([*ten, notice(10)], groups, 30)
    assert found is not None
    assert (len(found.notices), found.is_digest) == (11, True)


def test_what_is_beyond_the_budget_waits_or_is_a_digest() -> None:
    notices, groups = [notice(1), notice(2), notice(3, "critical")], {1: "a", 2: "b", 3: "c"}
    assert batch(notices[:2], groups, 30, Budget(0, 5)) is None
    assert numbers(batch(notices, groups, 30, Budget(0, 5))) == [3]
    assert numbers(batch(notices[:2], groups, 30, Budget(1, 6))) == [1, 2]
    assert batch(notices, groups, 30, Budget(0, 0)) is None


def test_a_quarter_is_kept_for_what_is_critical() -> None:
    assert budget_of(60, 0) == Budget(45, 60)
    assert budget_of(60, 45) == Budget(0, 15)
    assert budget_of(60, 99) == Budget(0, 0)


def test_late_ones_are_one_digest_once_no_more_come() -> None:
    late = [notice(number, created=number * 10, late=True) for number in range(20)]
    groups = {number: str(number) for number in range(20)}
    assert batch(late, groups, 190 + 29) is None
    found = batch(late, groups, 190 + 30)
    assert found is not None
    assert (len(found.notices), found.is_digest) == (20, True)
    steadily = [notice(number, created=number * 10, late=True) for number in range(100)]
    assert (
        batch(steadily, {number: str(number) for number in range(100)}, LONGEST_CATCHING_UP.total_seconds()) is not None
    )


def test_what_waited_long_is_late_too_and_one_group_of_it_is_no_digest() -> None:
    notices = [notice(1), notice(2)]
    later = LATE.total_seconds() + 31
    assert batch(notices, {1: "a", 2: "b"}, later) == Batch(notices, True)
    assert batch(notices, {1: "a", 2: "a"}, later) == Batch(notices, False)


def test_groups_about_the_same_gpus_go_out_together() -> None:
    events = {number: Event(pk=number, entity=entity) for number, entity in enumerate("AAABBCA")}
    rules = dict(enumerate([("xid",), ("ecc",), ("brake",), ("brake",), ("slow",), ("slow",), ("xid",)]))
    joined = join_by_entity(rules, events, dict.fromkeys(events, ("node-1",)))
    assert joined[0] == joined[1] == joined[6]
    assert len({joined[0], joined[2], joined[4]}) == 3
    assert (joined[2], joined[4]) == (joined[3], joined[5])
    apart = join_by_entity(rules, events, {**dict.fromkeys(events, ("critical",)), 1: ("warning",)})
    assert apart[0] != apart[1]
