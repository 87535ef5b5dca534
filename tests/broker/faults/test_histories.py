"""Rows 16, 18 and 24 of the fault matrix: what a log does over time, against clocks, readers and a list."""

from __future__ import annotations

import os
import tempfile
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.client.client import BrokerClient, Gap, Message
from broker.log.log import Entries, Log, LogConfig
from tests.broker.harness import publish_one_by_one, running_broker
from tests.broker.logs import Answer, LazyDisk, StillClock, answers_of, append, crash, opened, read_all, single

HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    "jump_ms", [-HOUR_MS, HOUR_MS, -2 * HOUR_MS, 365 * 24 * HOUR_MS], ids=["dst back", "dst", "-2 h", "+1 y"]
)
def test_row_16_a_clock_that_jumps(tmp_path: Path, jump_ms: int) -> None:
    clock = StillClock()
    with opened(tmp_path, segment_bytes=4096, retention_age_s=7200, clock=clock, disk=LazyDisk()) as log:
        for number in range(50):
            append(log, single(b"%d" % number, "00000000000000aa", number))
            clock.pass_time(1)
        clock.wall_ms += jump_ms
        for number in range(50, 100):
            append(log, single(b"%d" % number, "00000000000000aa", number))
            log.tick()
        assert append(log, single(b"7", "00000000000000aa", 7))[0] == Answer(7, True)
        records, gaps = read_all(log)
        assert gaps == []
        assert [record.payload for record in records] == [b"%d" % number for number in range(100)]
        times = [record.timestamp_ms for record in records]
        assert times == sorted(times)
        assert log.stats().clock_jumped == (abs(jump_ms) > HOUR_MS)


async def test_row_18_retention_under_readers(tmp_path: Path) -> None:
    async with running_broker(
        tmp_path, segment_bytes=16_384, retention_bytes=40_000, buffer_messages=0, tick_s=0.02
    ) as broker:
        readers = {"keeps up": 0, "behind": 0, "below": 0}
        clients = {name: await BrokerClient.connect("127.0.0.1", broker.port) for name in readers}
        got: dict[str, list[Message | Gap]] = {name: [] for name in readers}
        await clients["keeps up"].subscribe("keeps up")
        for round_ in range(5):
            await publish_one_by_one(broker.port, 200)
            if round_ == 2:
                await clients["behind"].subscribe("behind", 0)
        await clients["below"].subscribe("below", 0)
        end = broker.log.next_offset
        assert broker.log.oldest_offset > 0
        for name, client in clients.items():
            while not got[name] or _end(got[name][-1]) < end:
                got[name] += await client.receive()
            # Together, messages and gaps are all offsets, each once and in order.
            expected = 0
            for one in got[name]:
                first = one.first if isinstance(one, Gap) else one.offset
                assert first == expected
                expected = _end(one)
            assert expected == end
            assert all(one.reason == "retention" for one in got[name] if isinstance(one, Gap))
            await client.close()
        assert any(isinstance(one, Gap) for one in got["below"])


def _end(one: Message | Gap) -> int:
    return one.last + 1 if isinstance(one, Gap) else one.offset + 1


class LogBesideAList(RuleBasedStateMachine):
    """Anything that may happen to a log, in any order; a list of what was answered is the model."""

    @initialize(buffer_messages=st.sampled_from([0, 10_000]), segment_bytes=st.sampled_from([1000, 4096, 1 << 20]))
    def begin(self, buffer_messages: int, segment_bytes: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.clock = StillClock()
        self.config = LogConfig(segment_bytes=segment_bytes, buffer_messages=buffer_messages)
        self.model: list[tuple[bytes, str, int]] = []
        self.oldest = 0
        self.commits: dict[str, int] = {}
        self.saved: dict[str, int] = {}
        self.sent: dict[tuple[str, int], int] = {}
        self.serial = count()
        self.open()

    def open(self) -> None:
        self.log = Log.open(Path(self.folder.name) / "log", self.config, disk=LazyDisk(), clock=self.clock)

    @rule(
        sizes=st.lists(st.integers(1, 600), max_size=8),
        producer=st.sampled_from(["", "00000000000000aa", "00000000000000bb"]),
        first=st.integers(0, 30),
        cut=st.integers(0, 8),
    )
    def publish(self, sizes: list[int], producer: str, first: int, cut: int) -> None:
        sent = [b'"%b%d"' % (b"x" * size, next(self.serial)) for size in sizes]
        group = self.log.prepare([Entries(sent[:cut], producer, first), Entries(sent[cut:], producer, first + cut)])
        self.log.commit(group)
        self.log.finish(group)
        for sequence, (payload, answer) in enumerate(zip(sent, answers_of(group), strict=True), first):
            known = self.sent.get((producer, sequence)) if producer else None
            assert answer.duplicate == (known is not None)
            if known is None:
                assert answer.offset == len(self.model)
                if producer:
                    self.sent[producer, sequence] = answer.offset
                self.model.append((payload, producer, sequence))
            else:
                assert answer.offset in {known, -1}

    @rule(size=st.integers(1, 600))
    def give_up_a_group(self, size: int) -> None:
        self.log.abort(self.log.prepare([single(b'"%b"' % (b"z" * size))]))

    @rule(subscriber=st.sampled_from(["c1", "c2"]), share=st.floats(0, 1))
    def ack(self, subscriber: str, share: float) -> None:
        if self.model:
            offset = int(share * (len(self.model) - 1))
            self.log.commits.set(subscriber, offset)
            self.commits[subscriber] = max(offset, self.commits.get(subscriber, 0))

    @rule(seconds=st.floats(0.1, 10))
    def time_passes(self, seconds: float) -> None:
        self.clock.pass_time(seconds)
        self.log.tick()
        self.saved = dict(self.commits)

    @rule(share=st.floats(0, 1))
    def retain(self, share: float) -> None:
        self.log.drop_before(int(share * len(self.model)))
        assert self.log.oldest_offset <= max(self.oldest, int(share * len(self.model)))
        self.oldest = self.log.oldest_offset

    @rule(clean=st.booleans(), torn=st.binary(max_size=40))
    def start_again(self, clean: bool, torn: bytes) -> None:
        if clean:
            self.log.close()
            self.saved = dict(self.commits)
        else:
            crash(self.log)
            with sorted((Path(self.folder.name) / "log").glob("*.log"))[-1].open("ab") as file:
                file.write(torn)
        self.open()
        for subscriber, offset in self.saved.items():
            assert self.log.commits.get(subscriber) == offset
        self.commits = {name: at for name in ("c1", "c2") if (at := self.log.commits.get(name)) is not None}

    @precondition(lambda self: self.model)
    @rule(share=st.floats(0, 1), most=st.integers(1, 3000))
    def subscribe(self, share: float, most: int) -> None:
        start = int(share * (len(self.model) - 1))
        records, gaps = read_all(self.log, start, most)
        if start < self.oldest and gaps:
            assert gaps == [(start, self.oldest - 1, "retention")]
            start = self.oldest
        assert [record.offset for record in records] == list(range(start, len(self.model)))
        for record in records:
            payload, producer, sequence = self.model[record.offset]
            assert (record.payload, record.producer) == (payload, producer)
            assert not producer or record.sequence == sequence

    @invariant()
    def offsets_are_the_list_s(self) -> None:
        if hasattr(self, "log"):
            assert (self.log.oldest_offset, self.log.next_offset) == (self.oldest, len(self.model))
            assert self.log.degraded == []

    def teardown(self) -> None:
        if hasattr(self, "log"):
            crash(self.log)
            self.folder.cleanup()


# Row 24: FAULT_EXAMPLES=2000 in the soak.
TestRow24AnyHistoryMatchesAList = LogBesideAList.TestCase
TestRow24AnyHistoryMatchesAList.settings = settings(
    max_examples=int(os.environ.get("FAULT_EXAMPLES", "150")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
