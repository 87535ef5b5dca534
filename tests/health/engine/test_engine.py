"""The engine as a whole: the same log gives the same transitions, also over a stop at any point."""

from __future__ import annotations

import random
import zlib

import msgspec
import pytest

from health.engine.engine import Engine, EngineStateError
from health.engine.events import Transition
from health.engine.state import EngineState
from readings.model import Gpu, PointBlock
from readings.times import SECOND
from tests.health.engine.building import (
    ENERGY,
    MINUTE,
    REPLAYS,
    START,
    TEMP,
    UTIL,
    XID,
    gpu,
    level,
    make_rules,
    rule,
    start,
)

RULES = make_rules(
    rule("hot", "condition", level("warning", "GPU_TEMP > 85", "GPU_TEMP <= 83", for_ns=MINUTE, clear_samples=3)),
    rule("replays", "condition", level("warning", "growth(PCIE_REPLAY_COUNTER, 600) > 2", clear_ns=5 * MINUTE)),
    rule("idle", "condition", level("info", "held and GPU_UTIL < 5", samples=3)),
)


def messages(seed: int, hours: float = 1.5) -> list[tuple[PointBlock, int]]:
    """A log with faults, gaps, repeats, late readings and parts, as blocks and the times of their messages."""
    chance = random.Random(seed)
    gpus = [
        gpu(number, f"node-{host}", namespace="team" if host else "", pod="job" if host else "")
        for host in range(4)
        for number in range(4)
    ]
    state = {each.id: {UTIL: 50.0, TEMP: 60.0, XID: 0.0, ENERGY: 1e9, REPLAYS: 0.0} for each in gpus}
    log: list[tuple[PointBlock, int]] = []
    for step in range(int(hours * 3600 / 20)):
        now = START + step * 20 * SECOND
        rows = []
        for each in gpus:
            values = state[each.id]
            values[ENERGY] += 1e6
            if chance.random() < 0.004:
                values[XID] = float(chance.choice((0, 13, 31, 48, 79)))
            if chance.random() < 0.01:
                values[TEMP] = float(chance.choice((60, 84, 90)))
            if chance.random() < 0.01:
                values[UTIL] = float(chance.choice((0, 50)))
            if chance.random() < 0.02:
                values[REPLAYS] += 1
            if chance.random() < 0.001:
                values[ENERGY] = values[REPLAYS] = 0.0
            if chance.random() < 0.03 or (each.hostname == "node-3" and 50 < step < 90):
                continue
            rows.append((each, now, dict(values)))
        block = _block(rows)
        for part in _parts(block, chance):
            log.append((part, now + SECOND))
        if log and chance.random() < 0.05:
            log.append((chance.choice(log)[0], now + SECOND))
    return log


def _block(rows: list[tuple[Gpu, int, dict[str, float]]]) -> PointBlock:
    names = [UTIL, TEMP, XID, ENERGY, REPLAYS]
    return PointBlock(
        [each for each, _, _ in rows],
        names,
        [(index, now, [values.get(name) for name in names]) for index, (_, now, values) in enumerate(rows)],
    )


def _parts(block: PointBlock, chance: random.Random) -> list[PointBlock]:
    if chance.random() < 0.8:
        return [block]
    names = block.metric_names
    return [
        PointBlock(block.gpus, names[:2], [(gpu_at, now, values[:2]) for gpu_at, now, values in block.points]),
        PointBlock(block.gpus, names[2:], [(gpu_at, now, values[2:]) for gpu_at, now, values in block.points]),
    ]


def judge(log: list[tuple[PointBlock, int]], stops: set[int]) -> list[Transition]:
    engine = Engine(RULES)
    seen: list[Transition] = []
    for number, (block, received_ns) in enumerate(log):
        engine.take(block, source="s", live=True, received_ns=received_ns)
        seen += engine.drain()
        if number in stops:
            engine = Engine.load(engine.dump(), RULES)
    return seen


@pytest.mark.parametrize("seed", range(3))
def test_a_stop_at_any_point_changes_nothing(seed: int) -> None:
    log = messages(seed)
    chance = random.Random(seed)
    whole = judge(log, set())
    assert len({each.key.rule for each in whole}) >= 6
    assert judge(log, {chance.randrange(len(log)) for _ in range(40)}) == whole


def test_messages_that_come_again_change_nothing() -> None:
    log = messages(9, 0.5)
    again = []
    for number, (block, received_ns) in enumerate(log):
        again.append((block, received_ns))
        if number % 3 == 0:
            again += [(log[at][0], received_ns) for at in range(max(0, number - 5), number + 1)]
    assert judge(again, set()) == judge(log, set())


def test_every_opening_is_closed_before_the_next_of_its_key() -> None:
    open_now = set()
    for each in judge(messages(4), set()):
        if each.change == "opened":
            assert each.key not in open_now
            open_now.add(each.key)
        else:
            if each.change != "repeated":
                assert each.key in open_now
            if each.change == "closed":
                open_now.discard(each.key)
                assert each.at_ns >= each.opened_ns


def test_a_state_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(EngineStateError, match="cannot be read"):
        Engine.load(b"nonsense", RULES)


def test_rules_may_change_between_two_runs() -> None:
    engine = Engine(RULES)
    for block, received_ns in messages(1, 0.5):
        engine.take(block, source="s", live=True, received_ns=received_ns)
    fewer = make_rules(rule("hot", "condition", level("critical", "GPU_TEMP > 50"), level("critical", "GPU_TEMP > 70")))
    loaded = Engine.load(engine.dump(), fewer)
    for block, received_ns in messages(1, 0.6)[-30:]:
        loaded.take(block, source="s", live=True, received_ns=received_ns)
    assert loaded.judged > engine.judged


def test_a_state_of_another_version_is_refused() -> None:
    state = msgspec.msgpack.decode(zlib.decompress(Engine(RULES).dump()), type=EngineState)
    state.version += 1
    with pytest.raises(EngineStateError, match="version"):
        Engine.load(zlib.compress(msgspec.msgpack.encode(state)), RULES)


def test_events_of_a_rule_that_is_gone_close_at_the_next_start() -> None:
    feed = start(rule("hot", "condition", level("warning", "GPU_TEMP > 90")))
    feed.run(30, [(gpu(0), {UTIL: 5.0, TEMP: 95.0})])
    assert feed.said() == [("opened", "hot", "GPU-node-1-0")]
    loaded = Engine.load(feed.engine.dump(), make_rules())
    assert [(each.change, each.key.rule) for each in loaded.drain()] == [("closed", "hot")]
    assert not loaded.book.events
