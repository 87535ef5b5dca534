"""health.sharing: answers that those who ask at the same time share."""

from __future__ import annotations

import itertools

import pytest
from pytest_django import Settings

from health.sharing import SharedAnswer


def test_an_answer_is_shared_for_a_while_and_made_anew_when_told(settings: Settings) -> None:
    settings.FLEET_SECONDS = 60.0
    kept = SharedAnswer(itertools.count().__next__)
    assert [kept.now(), kept.now()] == [0, 0]
    kept.forget()
    assert kept.now() == 1
    settings.FLEET_SECONDS = 0.0
    assert [kept.now(), kept.now()] == [2, 3]


def test_a_failure_is_not_kept(settings: Settings) -> None:
    settings.FLEET_SECONDS = 60.0
    calls = itertools.count()

    def make() -> int:
        if next(calls) == 0:
            raise ValueError("away")
        return 1

    kept = SharedAnswer(make)
    with pytest.raises(ValueError, match="away"):
        kept.now()
    assert kept.now() == 1
