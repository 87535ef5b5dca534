from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ingest.rollups.roller import Roller

JOIN_SECONDS = 30.0


@pytest.fixture(autouse=True)
def _leases_end_with_their_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No thread that keeps a lease outlives its test, also of a roller that is left as a kill would leave it."""
    taken: list[threading.Event] = []
    acquire = Roller.acquire

    def acquire_and_note(roller: Roller) -> bool:
        has_lease = acquire(roller)
        taken.append(roller._ended)
        return has_lease

    monkeypatch.setattr(Roller, "acquire", acquire_and_note)
    yield
    for ended in taken:
        ended.set()
    for thread in threading.enumerate():
        if thread.name == "roll-up lease":
            thread.join(JOIN_SECONDS)
