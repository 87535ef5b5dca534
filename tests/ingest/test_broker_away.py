from __future__ import annotations

from pathlib import Path

import pytest

from tests.ingest import broker_away
from tests.ingest.broker_away import Outcome, _compare


@pytest.mark.acceptance
def test_a_broker_that_goes_away_in_a_scrape_costs_nothing(tmp_path: Path) -> None:
    outcome = broker_away.run(tmp_path / "state", seconds=4.0, targets=4, before=200)
    assert outcome.read > 200
    assert outcome.good, str(outcome)


def test_what_is_missing_twice_or_out_of_order_is_no_good() -> None:
    good = Outcome(read=2, sent=2, stored=2, most_waiting=1, left_waiting=0)
    _compare([("a", "m", 1, 0.0), ("a", "m", 2, 0.0)], good)
    assert good.good
    for readings in (
        [("a", "m", 1, 0.0)],
        [("a", "m", 1, 0.0), ("a", "m", 1, 0.0)],
        [("a", "m", 2, 0.0), ("a", "m", 1, 0.0)],
    ):
        bad = Outcome(read=2, sent=2, stored=2, most_waiting=1, left_waiting=0)
        _compare(readings, bad)
        assert not bad.good
        assert str(bad).endswith("BAD")
    assert not Outcome(read=2, sent=2, in_log=2, stored=2, most_waiting=0, left_waiting=0).good
