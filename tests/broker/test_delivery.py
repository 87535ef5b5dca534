from __future__ import annotations

from pathlib import Path

import pytest

from broker.client import BrokerClient
from broker.delivery import CHUNK_BYTES, cut
from broker.group import Entry, Group, build_group
from broker.log import Chunk
from broker.producers import Producers
from tests.broker.harness import offsets, plain_client, publish_all, running_broker, take


def group_of(*sizes: int) -> Group:
    return build_group([Entry(b"7" * size) for size in sizes], 100, 0, Producers())


def test_a_small_group_is_one_piece_and_no_copy() -> None:
    group = group_of(10, 20, 30)
    (piece,) = cut(group)
    assert piece.data is group.blob
    assert piece.next_offset == 103


@pytest.mark.parametrize(
    "sizes",
    [
        [100_000] * 7,
        [CHUNK_BYTES * 2],
        [CHUNK_BYTES * 2, 10, 10],
        [10, CHUNK_BYTES * 2, 10],
        [10, 10, CHUNK_BYTES * 2],
        [CHUNK_BYTES - 147] * 3,
        [CHUNK_BYTES // 3] * 10,
        [1] * 5000,
    ],
)
def test_a_large_group_is_cut_between_frames(sizes: list[int]) -> None:
    group = group_of(*sizes)
    pieces = cut(group)
    assert b"".join(piece.data for piece in pieces) == group.blob
    first = group.first_offset
    for piece in pieces:
        frames = group.frames[first - 100 : piece.next_offset - 100]
        assert piece.data == b"".join(frames)
        assert len(piece.data) <= CHUNK_BYTES or len(frames) == 1
        first = piece.next_offset
    assert first == group.next_offset


async def test_a_subscriber_is_dropped_when_the_log_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_broker(tmp_path, buffer_messages=0) as broker:
        await publish_all(broker.port, 3)

        def unreadable(offset: int, most: int) -> Chunk:
            raise OSError(5, "Input/output error")

        def stuck(offset: int, most: int) -> Chunk:
            return Chunk(b"", offset, None)

        for read in (unreadable, stuck):
            with monkeypatch.context() as patch:
                patch.setattr(broker.log, "read", read)
                async with plain_client(broker.port) as client:
                    assert (await client.ask(type="subscribe", subscriber_id="c1"))["success"] is True
                    assert await client.is_closed()
        again = await BrokerClient.connect("127.0.0.1", broker.port)
        await again.subscribe("c1")
        assert offsets(await take(again, 3)) == [0, 1, 2]
        await again.close()
