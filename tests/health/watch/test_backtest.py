"""A back-test finds in the past what watch would have found, and writes nothing."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from broker.client.address import BrokerAddress
from broker.client.client import BrokerClient
from health.engine.engine import Engine
from health.engine.facts import Facts
from health.rule_table import rules_now
from health.watch import backtest as backtest_module
from health.watch.backtest import Backtest, Findings
from readings.model import PointBlock
from readings.times import SECOND
from stores.memory import MemoryStore
from stores.sqlite import SqliteStore
from tests.broker.harness import running_broker
from tests.health.watch.feeding import STEP_NS, XID, as_messages, faulty_blocks

START = (time.time_ns() // SECOND - 7200) * SECOND
STEPS = 200
FOREVER = 1 << 62


def blocks(steps: int = STEPS) -> list[PointBlock]:
    return list(faulty_blocks(7, START, steps))


def found(findings: Findings) -> set[tuple[object, ...]]:
    return {(*each.key, each.opened_ns, each.closed_ns, each.severity) for each in findings.events.values()}


def judged_alive() -> set[tuple[object, ...]]:
    """What an engine says that gets the blocks one by one as they are made."""
    engine = Engine(rules_now(), Facts())
    findings = Findings()
    for block in blocks():
        engine.take(block, source="the store", live=True, received_ns=block.points[0][1])
        findings.note(engine.drain())
    return found(findings)


def address(port: int) -> BrokerAddress:
    return BrokerAddress(host="127.0.0.1", port=port)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_the_store_tells_what_an_engine_said_when_the_readings_came(tmp_path: Path, kind: str) -> None:
    store = SqliteStore(tmp_path / "s.sqlite3") if kind == "sqlite" else MemoryStore()
    store.write(blocks())
    findings = Backtest(rules_now(), Facts()).over_store(store, START, FOREVER)
    store.close()
    assert found(findings) == judged_alive()
    assert findings.opened["xid_fatal"] > 3
    assert (findings.first_ns, findings.last_ns) == (START, START + (STEPS - 1) * STEP_NS)
    assert findings.readings == sum(block.count() for block in blocks())


def test_a_range_of_the_store_begins_with_baselines() -> None:
    store = MemoryStore()
    store.write(blocks())
    middle = START + STEPS // 2 * STEP_NS
    findings = Backtest(rules_now(), Facts()).over_store(store, middle, middle + 20 * STEP_NS)
    assert (findings.first_ns, findings.last_ns) == (middle, middle + 19 * STEP_NS)
    assert all(middle <= each.opened_ns < middle + 20 * STEP_NS for each in findings.events.values())
    grown = [each for each in findings.events.values() if each.key.rule.startswith(("xid", "ecc"))]
    assert all(each.opened_ns > middle for each in grown)
    assert grown


def test_an_empty_store_and_one_without_metrics_of_interest_have_nothing_to_say() -> None:
    store = MemoryStore()
    assert Backtest(rules_now(), Facts()).over_store(store, 0, FOREVER).summary() == "no readings in that time"
    [block] = blocks(1)
    block.metric_names = [f"SOMETHING_{number}" for number in range(len(block.metric_names))]
    store.write([block])
    assert Backtest(rules_now(), Facts()).over_store(store, 0, FOREVER).readings == 0


async def test_the_log_tells_the_same_and_no_subscriber_stays(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        for payload in as_messages(iter(blocks())):
            await client.publish(payload)
        await client.publish(b'"no batch"')
        await client.close()
        findings = await Backtest(rules_now(), Facts()).over_log(address(broker.port), 0, FOREVER)
        assert dict(broker.log.commits.items()) == {}
    engine = Engine(rules_now(), Facts())
    expected = Findings()
    now = time.time_ns()
    for block in blocks():
        engine.take(block, source="feed", live=False, received_ns=now)
        expected.note(engine.drain())
    assert found(findings) == found(expected)
    assert findings.opened["xid_fatal"] > 3
    assert findings.unread == 1
    assert findings.readings == sum(block.count() for block in blocks())


async def test_a_range_of_the_log_is_found_by_the_time_at_the_broker(tmp_path: Path) -> None:
    messages = as_messages(iter(blocks(60)))
    async with running_broker(tmp_path) as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        marks = []
        for number, payload in enumerate(messages):
            if number in {20, 50}:
                await asyncio.sleep(0.01)
                marks.append(time.time_ns())
                await asyncio.sleep(0.01)
            await client.publish(payload)
        await client.close()
        findings = await Backtest(rules_now(), Facts()).over_log(address(broker.port), *marks)
        assert (findings.first_ns, findings.last_ns) == (START + 20 * STEP_NS, START + 49 * STEP_NS)
        late = await Backtest(rules_now(), Facts()).over_log(address(broker.port), time.time_ns() + SECOND, FOREVER)
        assert late.readings == 0
    async with running_broker(tmp_path / "empty") as broker:
        none = await Backtest(rules_now(), Facts()).over_log(address(broker.port), 0, FOREVER)
        assert none.summary() == "no readings in that time"


def test_the_table_names_each_event_and_the_totals_each_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backtest_module, "MOST_EVENTS", 5)
    store = MemoryStore()
    store.write(blocks())
    findings = Backtest(rules_now(), Facts()).over_store(store, START, FOREVER)
    assert len(findings.events) == 5
    lines = list(findings.lines())
    assert lines[0].split() == ["rule", "entity", "where", "opened", "closed", "severity", "summary"]
    assert " · gpu " in lines[1]
    assert lines[6] == f"… and {findings.opened.total() - 5} more, which are in the totals"
    totals = dict(line.split()[:2] for line in lines[9:-2])
    assert totals == {rule: str(count) for rule, count in findings.opened.items()}
    assert lines[-1].startswith(f"{findings.opened.total()} events would have opened in {findings.readings} readings")
    assert XID not in lines[1]
