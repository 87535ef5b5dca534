"""inventory.sync.placements: placements grown from observations, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from inventory.models import GPU, Placement
from inventory.sync import placements
from inventory.sync.placements import RESUME_WITHIN, SHARE_ENDS_AFTER, update_placements
from inventory.sync.seen import NOTHING, Observation, Pod

START = datetime(2025, 7, 18, tzinfo=UTC)
TRAIN, SERVE = Pod("ml", "train", "main"), Pod("ml", "serve", "main")


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def row(pod: Pod, seconds: float) -> GPU:
    namespace, name, container = pod
    return GPU(
        id="GPU-a", namespace=namespace, pod=name, container=container, first_seen=START, last_seen=after(seconds)
    )


def seen(pod: Pod | None, first: float, last: float) -> Observation:
    return Observation("host-1", 0, pod, after(first), after(last))


def shown(placements: list[Placement]) -> list[tuple[str, float, float, bool]]:
    return [
        (each.pod, (each.started - START).total_seconds(), (each.last_seen - START).total_seconds(), each.ended is None)
        for each in sorted(placements, key=lambda each: (each.started, each.pod))
    ]


def test_what_is_already_known_is_no_change() -> None:
    gpu = row(TRAIN, 60)
    [known] = update_placements(gpu, [], [seen(TRAIN, 0, 60)], [])
    assert shown([known]) == [("train", 0, 60, True)]
    assert update_placements(gpu, [known], [seen(TRAIN, 10, 50)], []) == []


def test_an_observation_that_says_nothing_of_pods_ends_nothing() -> None:
    known = update_placements(row(TRAIN, 0), [], [seen(TRAIN, 0, 0)], [])
    assert update_placements(row(TRAIN, 99), known, [seen(None, 99, 99)], []) == []


@pytest.mark.parametrize(("gap", "count"), [(RESUME_WITHIN, 1), (RESUME_WITHIN + timedelta(seconds=1), 2)])
def test_a_pod_that_is_back_in_time_was_never_gone(gap: timedelta, count: int) -> None:
    known = update_placements(row(NOTHING, 5), [], [seen(TRAIN, 0, 0), seen(NOTHING, 5, 5)], [])
    assert shown(known) == [("train", 0, 0, False)]
    back = gap.total_seconds()
    changed = update_placements(row(TRAIN, back), known, [seen(TRAIN, back, back)], [])
    assert len({id(each) for each in (*known, *changed)}) == count
    assert shown(changed)[-1] == ("train", back if count == 2 else 0, back, True)


def test_a_stay_that_bridges_two_placements_prolongs_the_earlier() -> None:
    gpu = row(SERVE, 9000)
    known = update_placements(
        gpu, [], [seen(TRAIN, 0, 10), seen(NOTHING, 20, 20), seen(TRAIN, 2000, 2010), seen(SERVE, 9000, 9000)], []
    )
    assert shown(known) == [("train", 0, 10, False), ("train", 2000, 2010, False), ("serve", 9000, 9000, True)]
    [changed] = update_placements(gpu, known, [seen(TRAIN, 5, 2000)], [])
    assert shown([changed]) == [("train", 0, 2000, False)]


def test_an_older_reading_of_an_open_pod_before_its_time_is_a_placement_of_its_own() -> None:
    gpu = row(TRAIN, 9000)
    known = update_placements(gpu, [], [seen(TRAIN, 9000, 9000)], [])
    assert shown(update_placements(gpu, known, [seen(TRAIN, 0, 1)], [])) == [("train", 0, 1, False)]


def test_shares_last_until_their_gpu_is_read_long_after() -> None:
    limit = SHARE_ENDS_AFTER.total_seconds()
    shares = [seen(TRAIN, 0, 0), seen(SERVE, 0, 0)]
    known = update_placements(row(NOTHING, 0), [], [seen(NOTHING, 0, 0)], shares)
    assert shown(known) == [("serve", 0, 0, True), ("train", 0, 0, True)]
    assert all(each.share for each in known)
    assert update_placements(row(NOTHING, limit), known, [seen(NOTHING, limit, limit)], []) == []
    ended = update_placements(row(NOTHING, limit + 1), known, [seen(NOTHING, limit + 1, limit + 1)], [])
    assert shown(ended) == [("serve", 0, 0, False), ("train", 0, 0, False)]


def test_a_pod_that_is_the_gpus_and_a_share_is_one_placement() -> None:
    gpu = row(TRAIN, 0)
    assert shown(update_placements(gpu, [], [seen(TRAIN, 0, 0)], [seen(TRAIN, 0, 0), seen(SERVE, 0, 0)])) == [
        ("serve", 0, 0, True),
        ("train", 0, 0, True),
    ]


def test_thousands_of_pods_of_one_gpu_cost_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0

    def counted(placement: Placement | GPU) -> Pod:
        nonlocal looked_at
        looked_at += 1
        return Pod(placement.namespace, placement.pod, placement.container)

    monkeypatch.setattr(placements, "pod_of", counted)
    pods = [Pod("n", f"p{n}", "") for n in range(3000)]
    in_turn = [seen(pod, n, n) for n, pod in enumerate(pods)]
    at_once = [seen(pod, 5000, 5000) for pod in pods]
    for observations, shares in ((in_turn, []), (at_once, []), ([], at_once)):
        looked_at = 0
        gpu = row(pods[-1], 5000)
        made = update_placements(gpu, [], observations, shares)
        assert len(made) == 3000
        assert looked_at < 10 * 3000
        looked_at = 0
        assert len(update_placements(gpu, made, observations, shares)) <= 3000
        assert looked_at < 10 * 3000
