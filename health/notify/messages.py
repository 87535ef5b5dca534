"""The texts of messages. Names come from exporters, so whatever stands in them is shown on one line and means nothing to a chat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from health.models import EntityKind, Event, EventState, Notice, NoticeKind
from health.notify.channels import SEVERITIES
from health.rules.model import ACTION_WORDS, Rule
from readings.text import printable
from readings.times import spell_duration

# Lines in one message; what is beyond is counted.
MOST_LINES = 20
_MOST_ADVICE = 5
_MOST_NAME, _MOST_SENTENCE = 100, 300
_SHORT = 8  # characters of a UUID, as on the pages
# In a chat these begin a mention, a link or a command.
_MEANINGLESS = str.maketrans({"<": "‹", ">": "›", "@": "＠", "`": "'", "*": "∗", "|": "¦", "[": "［", "]": "］"})


class MessageType(StrEnum):
    """What a message is about, by its worst. The receiver chooses a colour by it."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"
    RESOLVED = "resolved"


class ChannelMessage(NamedTuple):
    """What is sent. ``key`` is the same when it is sent again; ``thread`` is the same for all messages about one event."""

    key: str
    type: MessageType
    title: str
    body: str
    thread: str = ""


class Step(StrEnum):
    """What a message says of one event."""

    NEW = "new"
    WORSE = "worse"
    STILL = "still open"
    OVER = "over"
    CAME_AND_WENT = "came and went"


@dataclass(frozen=True)
class Wording:
    """What messages are written with: the rules, for their titles and what to do, and the public address of the pages."""

    rules: Mapping[str, Rule] = field(default_factory=dict)
    public_url: str = ""

    def title(self, rule: str) -> str:
        """What a rule is called."""
        found = self.rules.get(rule)
        return printable(found.title if found else rule)[:_MOST_NAME]

    def advice(self, event: Event) -> str:
        """What to do about an event; empty for nothing."""
        rule = self.rules.get(event.rule)
        if rule is not None and rule.action == event.action:
            return rule.action_text if rule.advice or rule.action != "none" else ""
        return "" if event.action in {"", "none"} else ACTION_WORDS.get(event.action, plain(event.action))

    def link(self, event: Event | None = None) -> str:
        """The page of an event, or the list of them; a path where the public address is not known."""
        return f"{self.public_url}/events" if event is None else f"{self.public_url}/events/{event.pk}"


def compose(
    notices: Sequence[Notice], key: str, wording: Wording, now: datetime, *, digest: bool = False
) -> ChannelMessage:
    """One message about these notices, whose events are loaded: in full for one event, a line each for several, figures for many."""
    steps = _steps(notices)
    ordered = sorted(
        steps,
        # Of what is as bad, an XID is nearest to the cause.
        key=lambda each: (
            each[1] is Step.OVER,
            -SEVERITIES.index(each[0].severity),
            not each[0].rule.startswith("xid"),
            each[0].opened,
        ),
    )
    worst = _worst(ordered)
    if len(ordered) == 1:
        event, step = ordered[0]
        return ChannelMessage(
            key, worst, _title(event, step, wording), _in_full(event, step, wording, key, now), thread_of(event)
        )
    if not digest and len({(event.hostname, event.entity) for event, _ in ordered}) == 1:
        event, step = ordered[0]
        title = f"{_title(event, step, wording)}, and {len(ordered) - 1} more"
    else:
        title = f"{_word(worst, digest=digest)}: {_counted(ordered, wording)}"
    lines = _by_rule(ordered, wording) if len(ordered) > MOST_LINES else []
    shown = ordered[: MOST_LINES - len(lines)]
    lines += [_line(event, step, wording, now) for event, step in shown]
    if len(ordered) > len(shown):
        lines.append(f"… and {len(ordered) - len(shown)} more")
    lines += [*_to_do(ordered, wording), "", f"All events: {wording.link()}", f"Key: {key}"]
    return ChannelMessage(key, worst, title, "\n".join(lines))


def trial_message(public_url: str, now: datetime) -> ChannelMessage:
    """A message that means nothing."""
    key = f"test-{now:%Y%m%dT%H%M%S}"
    lines = ["Nothing is wrong: somebody tests whether messages arrive here.", "", public_url, f"Key: {key}"]
    return ChannelMessage(key, MessageType.INFO, "TEST: GPU telemetry", "\n".join(filter(None, lines)))


def thread_of(event: Event) -> str:
    """A name that all messages about one event share."""
    return f"event-{event.pk}"


def where(event: Event) -> str:
    """Where it is: host, GPU or slot, the beginning of the UUID, model."""
    parts = [plain(event.hostname)]
    if event.entity_kind == EntityKind.GPU:
        parts += [
            f"gpu {event.slot}" if event.slot is not None else "",
            _short_id(event.entity),
            plain(event.model_name),
        ]
    elif event.entity_kind == EntityKind.SLOT:
        parts.append(f"slot {event.slot}" if event.slot is not None else plain(event.entity))
    elif event.entity_kind == EntityKind.SOURCE:
        parts.append(f"source {plain(event.entity)}")
    elif event.entity_kind == EntityKind.FLEET:
        parts.append("the fleet")
    elif not event.hostname:
        parts.append(plain(event.entity))
    return " · ".join(part for part in parts if part)


def plain(text: str) -> str:
    """A name as it may stand in a message: one line, of bounded length, without signs that chats take for commands."""
    return _cut(_without_commands(text), _MOST_NAME)


def summary_of(event: Event) -> str:
    """The event in one sentence, on one line."""
    return _cut(_without_commands(event.summary), _MOST_SENTENCE)


def _without_commands(text: str) -> str:
    return printable(text).translate(_MEANINGLESS).replace("://", ":∕∕")


def _steps(notices: Sequence[Notice]) -> list[tuple[Event, Step]]:
    """What to say of each event, once, from all that is known of it."""
    kinds: dict[int, set[str]] = {}
    events = {}
    for notice in notices:
        events[notice.event_id] = notice.event
        kinds.setdefault(notice.event_id, set()).add(notice.kind)
    return [(events[pk], _step(found, events[pk])) for pk, found in kinds.items()]


def _step(kinds: set[str], event: Event) -> Step:
    is_news = NoticeKind.OPENED in kinds or NoticeKind.RAISED in kinds
    if event.state == EventState.CLOSED:
        return Step.CAME_AND_WENT if is_news else Step.OVER
    if NoticeKind.OPENED in kinds:
        return Step.NEW
    return Step.WORSE if NoticeKind.RAISED in kinds else Step.STILL


def _worst(steps: Sequence[tuple[Event, Step]]) -> MessageType:
    ongoing = [event.severity for event, step in steps if step is not Step.OVER]
    if not ongoing:
        return MessageType.RESOLVED
    return MessageType(max(ongoing, key=SEVERITIES.index))


def _word(worst: MessageType, *, digest: bool = False) -> str:
    return f"{worst.upper()} (digest)" if digest else worst.upper()


def _title(event: Event, step: Step, wording: Wording) -> str:
    place = " · ".join(where(event).split(" · ")[:2])
    word = "RESOLVED" if step is Step.OVER else event.severity.upper()
    suffix = {Step.STILL: ", still open", Step.CAME_AND_WENT: ", over again"}.get(step, "")
    subject = f" ({plain(event.subject)})" if event.subject else ""
    return f"{word}: {wording.title(event.rule)}{subject} on {place}{suffix}"


def _in_full(event: Event, step: Step, wording: Wording, key: str, now: datetime) -> str:
    lines = [f"Where: {where(event)}"]
    if event.pod or event.namespace:
        lines.append(f"Pod: {'/'.join(plain(part) for part in (event.namespace, event.pod) if part)}")
    times = f", {event.count} times" if event.count > 1 else ""
    lines += [f"What: {summary_of(event)}{times}", f"Since: {_since(event, now)}"]
    if event.state == EventState.UNKNOWN:
        lines.append("State: unknown, since nothing is heard of it")
    advice = wording.advice(event)
    if advice and event.state != EventState.CLOSED:
        lines.append(f"To do: {advice}")
    if event.resolved_by:
        lines.append(f"Resolved by: {plain(event.resolved_by)}")
    if event.acknowledged_by and step is not Step.OVER:
        lines.append(f"Acknowledged by: {plain(event.acknowledged_by)}")
    return "\n".join([*lines, "", wording.link(event), f"Key: {key}"])


def _since(event: Event, now: datetime) -> str:
    opened = f"{event.opened:%Y-%m-%d %H:%M:%S} UTC"
    if event.closed is not None:
        return f"{opened}, it lasted {spell_duration(max(0.0, (event.closed - event.opened).total_seconds()))}"
    lasted = max(0.0, (now - event.opened).total_seconds())
    return f"{opened}, {spell_duration(lasted)} ago" if lasted >= 1 else opened


def _counted(steps: Sequence[tuple[Event, Step]], wording: Wording) -> str:
    """How many, of what and where, as far as they have it in common."""
    ongoing, over = _numbers(steps)
    events = [event for event, _ in steps]
    rules, hosts = {event.rule for event in events}, {event.hostname for event in events if event.hostname}
    what = f"× {wording.title(rules.pop())}" if len(rules) == 1 else "events"
    place = f" on {plain(next(iter(hosts)))}" if len(hosts) == 1 else f" on {len(hosts)} hosts" if hosts else ""
    numbers = f"{ongoing or over} {what}"
    return f"{numbers}{place}{f', {over} over' if ongoing and over else ''}"


def _numbers(steps: Sequence[tuple[Event, Step]]) -> tuple[int, int]:
    over = sum(step is Step.OVER for _, step in steps)
    return len(steps) - over, over


def _by_rule(steps: Sequence[tuple[Event, Step]], wording: Wording) -> list[str]:
    """A line for each of the rules with the most events, at most half of all lines."""
    counts = Counter(event.rule for event, _ in steps)
    lines = []
    for rule, _ in counts.most_common(MOST_LINES // 2):
        mine = [(event, step) for event, step in steps if event.rule == rule]
        ongoing, over = _numbers(mine)
        hosts = len({event.hostname for event, _ in mine if event.hostname})
        numbers = " and ".join(
            text for text in (f"{ongoing} open" * bool(ongoing), f"{over} over" * bool(over)) if text
        )
        lines.append(f"{wording.title(rule)}: {numbers}{f', on {hosts} hosts' if hosts > 1 else ''}")
    if len(counts) > len(lines):
        lines.append(f"… and {len(counts) - len(lines)} more rules")
    return [*lines, ""]


def _line(event: Event, step: Step, wording: Wording, now: datetime) -> str:
    word = "RESOLVED" if step is Step.OVER else event.severity.upper()
    return f"{word} · {wording.title(event.rule)} · {where(event)} · {summary_of(event)} · since {_since(event, now)} · {wording.link(event)}"


def _to_do(steps: Sequence[tuple[Event, Step]], wording: Wording) -> list[str]:
    """What to do about those that are not over: each advice once, the worst event's first."""
    advised: dict[str, str] = {}
    for event, _ in steps:
        if event.state != EventState.CLOSED and (advice := wording.advice(event)):
            advised.setdefault(advice, wording.title(event.rule))
    if len(advised) == 1:
        return ["", f"To do: {next(iter(advised))}"]
    return (
        ["", *(f"To do about {title}: {advice}" for advice, title in list(advised.items())[:_MOST_ADVICE])]
        if advised
        else []
    )


def _short_id(gpu_id: str) -> str:
    board, colon, instance = plain(gpu_id).removeprefix("GPU-").partition(":")
    return f"{board[:_SHORT]}{colon}{instance}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
