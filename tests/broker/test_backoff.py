from __future__ import annotations

from itertools import islice

from broker.backoff import backoff


def test_it_doubles_up_to_the_most() -> None:
    assert list(islice(backoff(0.1, 2.0, 0.5, random=lambda: 1.0), 5)) == [0.1, 0.2, 0.4, 0.5, 0.5]


def test_jitter_takes_away_at_most_half() -> None:
    assert list(islice(backoff(1.0, 2.0, 4.0, random=lambda: 0.0), 4)) == [0.5, 1.0, 2.0, 2.0]


def test_the_first_wait_keeps_to_the_most() -> None:
    assert next(backoff(10.0, 2.0, 3.0, random=lambda: 1.0)) == 3.0


def test_two_clients_do_not_wait_alike() -> None:
    assert list(islice(backoff(), 5)) != list(islice(backoff(), 5))
