from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.errors import OffsetOutOfRange
from broker.log.log import Entries, Log, LogConfig
from broker.protocol.connection import Subscribe
from broker.server.start import Start, find_start


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """Ten messages in segments of one, of which the first three are gone; c1 committed 5."""
    log = Log.open(tmp_path, LogConfig(segment_bytes=1))
    for number in range(10):
        batch = log.prepare([Entries([b"%d" % number])])
        log.commit(batch)
        log.finish(batch)
    log.drop_before(3)
    log.commits.set("c1", 5)
    yield log
    log.close()


@pytest.mark.parametrize(("offset", "position"), [(None, 6), (-2, 3), (-1, 10), (0, 0), (7, 7), (10, 10)])
def test_a_plain_subscriber_starts_where_it_says(log: Log, offset: int | None, position: int) -> None:
    assert find_start(log, Subscribe("c1", offset, b"")) == Start(position)


def test_one_that_asks_learns_the_message_before(log: Log) -> None:
    assert find_start(log, Subscribe("c1", None, b"", "")) == Start(6, False, log.checksum_at(5) or "-")
    assert find_start(log, Subscribe("c1", -2, b"", "")) == Start(3, False, "")


def test_the_checksum_decides(log: Log) -> None:
    c32 = log.checksum_at(8) or "-"
    for identity in (log.identity.id, "of another"):
        same = Subscribe("c1", 9, b"", identity, 8, c32)
        assert find_start(log, same) == Start(9, False, c32)
        other = Subscribe("c1", 9, b"", identity, 8, "00000000")
        assert find_start(log, other) == Start(6, True, log.checksum_at(5) or "-")
        new = Subscribe("c2", 9, b"", identity, 8, "00000000")
        assert find_start(log, new) == Start(3, True, "")


def test_where_the_message_is_gone_the_identity_decides(log: Log) -> None:
    assert find_start(log, Subscribe("c1", 2, b"", log.identity.id, 1, "00000000")).restored is False
    assert find_start(log, Subscribe("c1", 2, b"", "of another", 1, "00000000")) == Start(
        6, True, log.checksum_at(5) or "-"
    )


def test_a_message_past_the_end_is_of_another_log(log: Log) -> None:
    assert find_start(log, Subscribe("c1", 11, b"", log.identity.id, 10, "00000000")).restored is True
    with pytest.raises(OffsetOutOfRange, match="past the end"):
        find_start(log, Subscribe("c1", 11, b""))
