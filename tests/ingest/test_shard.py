from __future__ import annotations

from ingest.shard import WHOLE, Shard


def test_each_key_and_each_number_is_in_one_shard() -> None:
    shards = [Shard(number, 4) for number in range(4)]
    for number in range(100):
        assert sum(shard.has(f"row {number}") for shard in shards) == 1
        assert sum(shard.has_number(number) for shard in shards) == 1
    assert all(any(shard.has(f"row {number}") for number in range(100)) for shard in shards)
    assert WHOLE.has("anything")
    assert WHOLE.has_number(5)
