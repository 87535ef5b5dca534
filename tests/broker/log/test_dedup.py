from __future__ import annotations

import random

import pytest

from broker.log import dedup
from broker.log.dedup import MOST_RUNS, MOST_RUNS_SAVED, UNKNOWN_OFFSET, ProducerState, ProducerStates
from tests.broker.logs import OTHER, PRODUCER


def test_sequences_in_a_row_are_one_run() -> None:
    state = ProducerState()
    assert (state.last, state.last_offset) == (-1, UNKNOWN_OFFSET)
    for number in range(100):
        state.add(number + 5, number + 50)
    assert state.runs(10) == [(5, 50, 100)]
    assert (state.last, state.last_offset) == (104, 149)
    assert [state.find(sequence) for sequence in (4, 5, 104, 105)] == [None, 50, 149, None]


def test_a_skipped_sequence_is_known_as_missing_until_it_comes() -> None:
    state = ProducerState()
    state.add(1, 10)
    state.add(5, 11)
    assert state.find(3) is None
    state.add(3, 12)
    state.add(2, 13)
    assert [state.find(sequence) for sequence in range(7)] == [None, 10, 13, 12, None, 11, None]
    assert state.last == 5


def test_a_run_fills_only_what_is_missing() -> None:
    state = ProducerState()
    state.add_run(10, 100, 5)
    state.add_run(20, 200, 5)
    state.add_run(5, 900, 25)
    found = [state.find(sequence) for sequence in range(5, 30)]
    assert found == [*range(900, 905), *range(100, 105), *range(910, 915), *range(200, 205), *range(920, 925)]


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_sequences_is_remembered(seed: int) -> None:
    choose = random.Random(seed)
    known = ProducerStates()
    model: dict[int, int] = {}
    for offset in range(200):
        sequence = choose.randrange(150)
        staged = known.stage(PRODUCER)
        assert staged.find(sequence) == model.get(sequence)
        if sequence not in model:
            staged.add(sequence, offset, 1)
            model[sequence] = offset
            assert staged.find(sequence) == offset
        known.merge({PRODUCER: staged}, offset)
    staged = known.stage(PRODUCER)
    assert [staged.find(sequence) for sequence in range(150)] == [model.get(sequence) for sequence in range(150)]


def test_the_oldest_runs_are_forgotten_and_count_as_appended() -> None:
    known = ProducerStates()
    for number in range(MOST_RUNS + 10):
        known.learn(PRODUCER, 10 * number, 2 * number, 1)
    staged = known.stage(PRODUCER)
    assert staged.find(0) == staged.find(5) == UNKNOWN_OFFSET
    newest = MOST_RUNS + 9
    assert staged.find(10 * newest) == 2 * newest
    assert staged.find(10 * newest - 5) is None
    ((_, floor, _, runs),) = known.rows()
    assert len(runs) == MOST_RUNS_SAVED
    assert floor == runs[0][0] == 10 * (newest - MOST_RUNS_SAVED + 1)
    saved = ProducerStates(known.rows()).stage(PRODUCER)
    assert saved.find(floor - 1) == UNKNOWN_OFFSET
    assert saved.find(floor + 1) is None


def test_what_is_learnt_twice_changes_nothing() -> None:
    known = ProducerStates()
    known.learn(PRODUCER, 1, 10, 1)
    known.learn(PRODUCER, 2, 11, 2)
    known.learn(PRODUCER, 1, 99, 3)
    assert known.rows() == [(PRODUCER, 0, 3, [(1, 10, 2)])]
    known.restore([(PRODUCER, 0, 2, [(2, 50, 2)]), (OTHER, 7, 1, [])])
    assert known.rows() == [(PRODUCER, 0, 3, [(1, 10, 2), (3, 51, 1)]), (OTHER, 7, 1, [])]
    assert known.stage(OTHER).last == 6
    assert known.stage(OTHER).find(6) == UNKNOWN_OFFSET


def test_rows_can_be_those_with_a_late_message_only() -> None:
    known = ProducerStates()
    known.learn(PRODUCER, 1, 10, 1)
    known.learn(OTHER, 1, 20, 1)
    assert [row[0] for row in known.rows(15)] == [OTHER]
    assert [row[0] for row in known.rows()] == [PRODUCER, OTHER]


def test_the_one_heard_longest_ago_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "MOST_PRODUCERS", 3)
    known = ProducerStates()
    ids = [f"{number:016x}" for number in range(1, 6)]
    for number, producer in enumerate(ids[:3]):
        known.learn(producer, 1, number, number)
    known.learn(ids[0], 2, 3, 3)
    known.learn(ids[3], 1, 4, 4)
    assert [row[0] for row in known.rows()] == [ids[2], ids[0], ids[3]]
    known.forget_older_than(3)
    assert [row[0] for row in known.rows()] == [ids[0], ids[3]]
    known.forget_older_than(100)
    assert len(known) == 0


@pytest.mark.parametrize("producer", ["", "0" * 16, "0" * 15, "A" * 16, "x" * 16, "0" * 15 + "1\n"])
def test_what_is_no_producer_id_is_refused(producer: str) -> None:
    with pytest.raises(ValueError, match="lower-case hex"):
        ProducerStates().stage(producer)
