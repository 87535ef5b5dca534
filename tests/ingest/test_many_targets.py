from __future__ import annotations

from pathlib import Path

import pytest

from tests.ingest import many_targets
from tests.ingest.many_targets import Minute, Outcome


@pytest.mark.acceptance
async def test_targets_that_hang_or_answer_nonsense_delay_no_other(tmp_path: Path) -> None:
    outcome = await many_targets.run(tmp_path / "state", targets=20, bad_share=0.1, minutes=1, minute_s=4.0)
    assert outcome.healthy == 16
    # Of how fresh they are a loaded machine says nothing; that they come again and again it does.
    assert outcome.minutes[0].readings > 2 * 16 * 25
    assert outcome.minutes[0].rss_mib > 0


def test_old_data_and_growing_memory_are_no_good() -> None:
    def outcome(age_s: float, *memory: float) -> Outcome:
        return Outcome(9, [Minute(age_s, each, each, 1.0, 1, (0.1, 0.1, 0.1)) for each in memory])

    assert outcome(2.9, 50, 80, 100, 104).good
    assert outcome(2.9, 50).good
    assert not outcome(3.1, 100, 100, 100, 100).good
    assert not outcome(2.9, 100, 100, 100, 106).good
    assert str(outcome(3.1, 100)).endswith("BAD")
