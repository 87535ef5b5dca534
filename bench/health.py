"""The engine of health events against a ground truth: what it finds, what it misses, what it makes up, how fast, at what cost.

    python -m bench.health                       # 1,000 GPUs, 24 hours at 30 s, seed 1: some minutes
    python -m bench.health --gpus 200 --hours 12 --seed 7 --show 50

bench.faults has the fleet, bench.fault_cases its faults and near-misses with the truth about them. Ends with status 1 if anything deviates.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from bench.fault_cases import make_world
from bench.faults import POINT_RULES, START_NS, STEP, STEP_S, Case, Expect, World
from health.engine.engine import Engine
from health.engine.events import Change, Transition
from health.rules.loading import load_rules


class Seen(NamedTuple):
    """One event as the engine made it. ``at`` are steps, counted in parts."""

    rule: str
    entity: tuple[str, str]
    subject: str
    opened: float
    severity: str  # the highest
    closed: float | None
    text: str
    changes: tuple[str, ...]
    times: int
    moments: list[float]  # when it happened: once, or of what is over at once as often as it was repeated


class Verdict(NamedTuple):
    """What came of a run."""

    seen: list[Seen]
    expected: list[tuple[Case, Expect]]
    matched: list[tuple[Expect, Seen, float]]  # with the time to detect, in seconds
    deviations: list[str]
    judged: int
    cpu_s: float
    near_misses: Counter[str]
    faults: Counter[str]

    @property
    def cpu_s_per_million(self) -> float:
        """What a million readings cost."""
        return self.cpu_s / max(1, self.judged) * 1e6


def run(world: World, restart_every: int = 0) -> Verdict:
    """Give the engine all messages of a world. ``restart_every``: it is dumped and loaded again after so many of them."""
    rules = load_rules(None)
    engine = Engine(rules)
    transitions: list[Transition] = []
    judged, cpu = 0, 0.0
    for count, message in enumerate(world.messages(), 1):
        if isinstance(message, int):
            since = time.process_time()
            engine.tick(message)
        else:
            judged += message.block.count()
            since = time.process_time()
            engine.take(message.block, source=message.source, live=True, received_ns=message.received_ns)
        transitions += engine.drain()
        cpu += time.process_time() - since
        if restart_every and count % restart_every == 0:
            engine = Engine.load(engine.dump(), rules, engine.facts)
    seen = events_of(transitions)
    expected = [(case, expect) for case in world.cases for expect in case.expects]
    matched, deviations = compare(world, seen, expected)
    near, faults = Counter[str](), Counter[str]()
    for case in world.cases:
        (faults if case.fault else near)[case.rule] += 1
    return Verdict(seen, expected, matched, deviations, judged, cpu, near, faults)


def events_of(transitions: Sequence[Transition]) -> list[Seen]:
    """The events, each with what became of it."""
    order = ("info", "warning", "critical")
    steps: dict[tuple[object, int], list[Transition]] = defaultdict(list)
    for transition in transitions:
        steps[transition.key, transition.opened_ns].append(transition)
    found = []
    for each in steps.values():
        first = each[0]
        closed = [step for step in each if step.change is Change.CLOSED]
        moments = [
            step_of(step.at_ns)
            for step in each
            if step is first or (first.key.rule in POINT_RULES and step.change is Change.REPEATED)
        ]
        found.append(
            Seen(
                first.key.rule,
                (first.key.entity.kind, first.key.entity.id),
                first.key.subject,
                step_of(first.at_ns),
                max((step.severity for step in each), key=order.index),
                step_of(closed[0].at_ns) if closed else None,
                first.text,
                tuple(f"{step.change} at {step_of(step.at_ns):.1f}" for step in each),
                len(moments),
                moments,
            )
        )
    return found


def step_of(at_ns: int) -> float:
    """A time as a number of steps since the start."""
    return (at_ns - START_NS) / STEP


def bounds(world: World, expect: Expect) -> tuple[float, float, float, float | None, float | None]:
    """The first bad sample, when the event opens at the earliest and at the latest, and when it closes; all in steps."""
    samples = world.delivered.get(expect.row, []) if expect.row >= 0 else list(range(world.steps))
    end = math.inf if expect.good is None else expect.good
    bad = [step for step in samples if expect.bad <= step and (step < end or step == expect.bad)]
    first = bad[0] if bad else expect.bad
    opens = held(bad, expect.samples, expect.for_s) if expect.row >= 0 else None
    if opens is None:
        opens = first + max(expect.samples - 1, math.ceil(expect.for_s / STEP_S))
    if expect.good is None:
        return first, opens - expect.early, opens + expect.late, None, None
    good = [step for step in samples if step >= expect.good]
    closes = held(good, expect.clear_samples, expect.clear_s) if expect.row >= 0 else None
    if closes is None:
        closes = expect.good + max(expect.clear_samples - 1, math.ceil(expect.clear_s / STEP_S))
    return first, opens - expect.early, opens + expect.late, closes - expect.close_early, closes + expect.close_late


def held(steps: Sequence[int], samples: int, for_s: float) -> int | None:
    """The step at which it has held for so many samples and so long."""
    for number, step in enumerate(steps):
        if number + 1 >= samples and (step - steps[0]) * STEP_S >= for_s:
            return step
    return None


def compare(
    world: World, seen: Sequence[Seen], expected: Sequence[tuple[Case, Expect]]
) -> tuple[list[tuple[Expect, Seen, float]], list[str]]:
    """What was found as it should be, and a line for each thing that was not."""
    cases: dict[str, list[str]] = defaultdict(list)
    for case in world.cases:
        rows = world.rows[case.host] if case.row < 0 else [case.row]
        names = [world.hosts[case.host], *(world.gpus[row].uuid for row in rows)]
        for name in names:
            cases[name].append(
                f"{'fault' if case.fault else 'near-miss'} {case.label!r} steps {case.start}-{case.until}"
            )

    def context(entity: tuple[str, str]) -> str:
        return "; ".join(dict.fromkeys(cases.get(entity[1], ["no case"])))

    left = list(seen)
    matched: list[tuple[Expect, Seen, float]] = []
    deviations: list[str] = []
    for case, expect in expected:
        first, earliest, latest, close_from, close_to = bounds(world, expect)
        alike = [
            event
            for event in left
            if event.rule == expect.rule
            and (expect.entity == ("", "") or event.entity == expect.entity)
            and (expect.subject is None or event.subject == expect.subject)
        ]
        hits = [
            (event, moment) for event in alike for moment in event.moments if earliest - 0.5 <= moment <= latest + 0.5
        ]
        what = f"{expect.rule} {expect.subject or ''} of {expect.entity[1]} in {case.label!r}"
        if not hits:
            near = ", ".join(f"{moment:.1f}" for event in alike for moment in event.moments) or "none"
            deviations.append(f"MISSED {what}: open within {earliest}..{latest}, seen {near}")
            continue
        event, moment = hits[0]
        event.moments.remove(moment)
        if not event.moments:
            left.remove(event)
        matched.append((expect, event, (moment - first) * STEP_S))
        if event.severity != expect.severity:
            deviations.append(f"SEVERITY {what}: {event.severity}, should be {expect.severity} ({event.text})")
        deviations += lost_and_found(world, event, what)
        if expect.rule in POINT_RULES:
            if event.closed is None:
                deviations.append(f"NOT CLOSED {what}: it is over at once; {event.changes}")
        elif expect.closes and close_from is not None and close_to is not None:
            if event.closed is None:
                deviations.append(f"NOT CLOSED {what}: by {close_to}; {event.changes}")
            elif not close_from - 0.5 <= event.closed <= close_to + 0.5:
                deviations.append(
                    f"CLOSED {what}: at {event.closed:.1f}, should be {close_from}..{close_to}; {event.changes}"
                )
        elif expect.closes is False and event.closed is not None:
            deviations.append(f"CLOSED {what}: at {event.closed:.1f}, should stay; {event.changes}")
    for event in left:
        deviations.append(
            f"FALSE {event.rule} {event.subject} of {event.entity[1]} at {event.opened:.1f} ({event.severity}: {event.text};"
            f" {event.changes}); there: {context(event.entity)}"
        )
    return matched, deviations


def lost_and_found(world: World, event: Seen, what: str) -> list[str]:
    """An event that is open while all is silent is unknown meanwhile, and no longer."""
    low, high = world.silence
    if event.entity[0] != "gpu" or event.rule == "gpu_missing" or event.opened > low - 4:
        return []
    if event.closed is not None and event.closed < high + 4:
        return []
    lost = [float(change.split()[-1]) for change in event.changes if change.startswith("lost")]
    back = [float(change.split()[-1]) for change in event.changes if change.startswith("regained")]
    if any(low < step < high for step in lost) and any(high - 1 <= step < high + 4 for step in back):
        return []
    return [f"UNKNOWN {what}: it should be so in the silence, steps {low} to {high}; {event.changes}"]


def report(world: World, verdict: Verdict, show: int) -> str:
    """The figures by rule, and the deviations."""
    times: dict[str, list[float]] = defaultdict(list)
    for expect, _, seconds in verdict.matched:
        times[expect.rule].append(seconds)
    wanted = Counter(expect.rule for _, expect in verdict.expected)
    made = Counter(rule for event in verdict.seen for rule in [event.rule] * event.times)
    hits = len(verdict.matched)
    lines = [f"{'rule':22}{'faults':>8}{'near':>6}{'events':>8}{'found':>7}{'false':>7}{'median s':>10}{'worst s':>9}"]
    for rule in sorted({*wanted, *made, *verdict.near_misses, *verdict.faults}):
        found = times.get(rule, [])
        lines.append(
            f"{rule:22}{verdict.faults[rule]:8}{verdict.near_misses[rule]:6}{wanted[rule]:8}{len(found):7}"
            f"{made[rule] - len(found):7}"
            + (f"{statistics.median(found):10.0f}{max(found):9.0f}" if found else f"{'-':>10}{'-':>9}")
        )
    lines += [
        f"{len(world.gpus)} GPUs and instances of {len(world.hosts)} hosts, {world.steps} steps of {STEP_S} s, {verdict.judged:,} readings",
        f"precision {hits / max(1, made.total()):.4f}, recall {hits / max(1, len(verdict.expected)):.4f},"
        f" {made.total() - hits} false, {len(verdict.deviations)} deviations",
        f"{verdict.cpu_s:.1f} s of CPU, {verdict.cpu_s_per_million:.2f} s for a million readings",
    ]
    if world.unplaced:
        lines.append(f"no room for {len(world.unplaced)} cases, such as {world.unplaced[0].label}")
    lines += verdict.deviations[:show]
    if len(verdict.deviations) > show:
        lines.append(f"… and {len(verdict.deviations) - show} more")
    return "\n".join(lines)


def main() -> None:
    """Run once and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--gpus", type=int, default=1000)
    parser.add_argument("--restart-every", type=int, default=0, help="dump and load the engine after so many messages")
    parser.add_argument("--show", type=int, default=100, help="deviations to print")
    args = parser.parse_args()
    world = make_world(args.gpus, args.hours, args.seed)
    verdict = run(world, args.restart_every)
    print(report(world, verdict, args.show))
    sys.exit(1 if verdict.deviations else 0)


if __name__ == "__main__":
    main()
