from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.ingest import spool_faults


@pytest.mark.acceptance
@pytest.mark.parametrize("spool_bytes", ["1GiB", "1MiB"], ids=["room", "full"])
def test_row_21_the_spool_outlives_the_brokers_absence_and_the_streamers_kills(
    tmp_path: Path, spool_bytes: str
) -> None:
    hosts = 2 if spool_bytes == "1GiB" else 40
    outcome = spool_faults.run(
        tmp_path, away=3, kills=1, spool_bytes=spool_bytes, hosts=hosts, chance=random.Random(21)
    )
    assert outcome.good, str(outcome)
    assert (outcome.given_up > 0) == (spool_bytes == "1MiB"), str(outcome)
