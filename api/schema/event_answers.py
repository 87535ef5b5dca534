"""The shape of requests and answers about events, rules and mutes. See api.schema.answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from api.schema.answers import (
    BASE,
    GPU_ID,
    HOST_NAME,
    Answer,
    EventCountsAnswer,
    NextUrl,
    PreviousUrl,
    RequestBody,
    Time,
    Url,
    eg,
)
from health.actions import MOST_NOTE

Severity = Literal["critical", "warning", "info"]
EventState = Literal["open", "unknown", "closed"]
_OPENED, _SEEN = "2025-07-18T20:42:34Z", "2025-07-18T20:44:34Z"
_RULE = "temp_high"
_TITLE = "GPU too hot"
_SUMMARY = "90 °C, limit 85 °C"
_TEXT_PATTERN = {"pattern": r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"}


def _text(most: int, least: int = 0) -> Meta:
    """The bounds of a text in a body."""
    bounds: dict[str, Any] = {"maxLength": most, **_TEXT_PATTERN} | ({"minLength": least} if least else {})
    return Meta(max_length=most, min_length=least or None, extra_json_schema=bounds)


class EventEntityAnswer(Answer):
    """What an event is about."""

    kind: Literal["gpu", "slot", "host", "source", "fleet"]
    id: Annotated[
        str,
        eg(GPU_ID, "a GPU's id, host/slot where no GPU was ever seen, a host's or a source's name; empty: the fleet"),
    ]


class EventAnswer(Answer):
    """Something that a rule found."""

    id: Annotated[int, eg(1)]
    rule: Annotated[str, eg(_RULE, "its rule's name, see /api/v1/rules")]
    title: Annotated[str, eg(_TITLE)]
    severity: Severity
    state: Annotated[EventState, eg("open", "unknown: nothing is heard of what it is about, which is no recovery")]
    entity: EventEntityAnswer
    hostname: Annotated[str, eg(HOST_NAME, "where it was when the event opened")]
    slot: Annotated[int | None, eg(3)]
    uuid: Annotated[str, eg(GPU_ID, "the GPU's id, as the paths of GPUs take it; empty for other entities")]
    short_uuid: Annotated[str, eg("GPU-5fd4f087", "the beginning of a UUID, for people")]
    model_name: Annotated[str, eg("NVIDIA H100 80GB HBM3")]
    namespace: Annotated[str, eg("research", "that used the GPU when the event opened")]
    pod: Annotated[str, eg("train-7")]
    subject: Annotated[str, eg("", "what tells events of one rule and entity apart: an XID, a metric's name")]
    opened: Annotated[Time, eg(_OPENED, "time of the reading that showed it")]
    last_seen: Annotated[Time, eg(_SEEN, "when it last held; up to a minute behind")]
    closed: Annotated[Time | None, eg(None)]
    duration_seconds: Annotated[float, eg(120.0, "until it closed, or until now")]
    count: Annotated[int, eg(1, "how often it happened")]
    summary: Annotated[str, eg(_SUMMARY)]
    details: Annotated[dict[str, Any], eg({"value": 90.0, "limit": 85.0}, "the figures by name")]
    action: Annotated[str, eg("none", "what to do, as a word for programs")]
    action_text: Annotated[str, eg("Nothing to do.", "what to do")]
    acknowledged: Annotated[Time | None, eg(None)]
    acknowledged_by: Annotated[str, eg("")]
    resolved_by: Annotated[str, eg("", "who closed it; empty: its rule, or it is not closed")]
    muted: Annotated[bool, eg(False, "whether nobody is notified of it: a mute fits it, or it is in maintenance")]
    muted_until: Annotated[Time | None, eg(None, "null: it is not muted, or for as long as the maintenance takes")]
    quiet: Annotated[bool, eg(False, "its rule only stores: nobody is ever notified, and no page is marked")]
    url: Annotated[Url, eg(f"{BASE}/events/1")]


class EventPageAnswer(Answer):
    """A page of events, the newest first."""

    data: list[EventAnswer]
    count: Annotated[int, eg(1, "matching events, on all pages")]
    by_severity: Annotated[EventCountsAnswer, eg({"critical": 1, "warning": 0, "info": 0}, "the same by severity")]
    next: NextUrl
    previous: PreviousUrl


class TransitionAnswer(Answer):
    """A step in the life of an event."""

    kind: Annotated[
        Literal["opened", "repeated", "raised", "lost", "regained", "closed", "acknowledged", "resolved", "noted"],
        eg("opened", "the last three are by people; raised: in severity; lost: nothing was heard any more"),
    ]
    at: Annotated[Time, eg(_OPENED, "of the reading that showed it, or when a person did it")]
    recorded: Annotated[Time, eg("2025-07-18T20:42:36Z", "when it was written")]
    severity: Annotated[Severity | None, eg("critical", "of the event from then on")]
    text: Annotated[str, eg(_SUMMARY)]
    user: Annotated[str, eg("", "who did it: a user, or a token's name")]
    note: Annotated[str, eg("")]


class EventDetailAnswer(EventAnswer):
    """An event with what happened to it."""

    transitions: Annotated[list[TransitionAnswer], Meta(description="the oldest first; of very many the newest 1000")]
    source: Annotated[str, eg("l9gpu 85/95; all-smi 80/90", "where the numbers of its rule come from")]
    disagreement: Annotated[str, eg("", "of an XID: where the sources on its severity differ")]


class TopRuleAnswer(Answer):
    """What one rule found in a range of time."""

    rule: Annotated[str, eg(_RULE)]
    title: Annotated[str, eg(_TITLE)]
    severity: Annotated[Severity, eg("critical", "the worst of its events")]
    count: Annotated[int, eg(3, "events that were ongoing at some time in the range")]
    duration_seconds: Annotated[float, eg(5400.0, "how long they held within the range, together")]


class EventSummaryAnswer(Answer):
    """Events over time."""

    every: Annotated[str, eg("10m", "length of a window")]
    start_time: Annotated[Time, eg("2025-07-18T20:30:00Z")]
    end_time: Annotated[Time, eg("2025-07-18T20:50:00Z")]
    over_time: Annotated[
        list[tuple[Time, EventCountsAnswer]],
        eg(
            [["2025-07-18T20:40:00Z", {"critical": 1, "warning": 0, "info": 0}]],
            "for each window its start, and how many events were ongoing at some time in it",
        ),
    ]
    top: Annotated[list[TopRuleAnswer], Meta(description="the rules with most events first")]


class RuleAnswer(Answer):
    """A rule, and what it finds on this fleet."""

    name: Annotated[str, eg(_RULE)]
    title: Annotated[str, eg(_TITLE)]
    finds: Annotated[str, eg("A GPU that is hotter than its model should be.")]
    condition: Annotated[str, eg("warning: GPU_TEMP > 85 for 5m", "in words and numbers")]
    entity: Annotated[str, eg("gpu", "what its events are about")]
    severity: Annotated[Severity, eg("critical", "the highest that it gives")]
    action: Annotated[str, eg("none")]
    action_text: Annotated[str, eg("Nothing to do.")]
    source: Annotated[str, eg("l9gpu 85/95; all-smi 80/90", "where its numbers come from")]
    inferred: Annotated[bool, eg(False, "whether its numbers are our own inference")]
    quiet: Annotated[bool, eg(False, "whether it only stores what it finds")]
    enabled: Annotated[bool, eg(True)]
    has_data: Annotated[bool, eg(True, "whether the fleet reports what it needs")]
    missing: Annotated[list[str], eg([], "metrics to add so that it has data")]
    open: Annotated[int, eg(1, "events that are ongoing")]
    opened_24h: Annotated[int, eg(1)]
    opened_7d: Annotated[int, eg(3)]


class RuleListAnswer(Answer):
    """The rules, in the order of their table."""

    data: list[RuleAnswer]
    count: Annotated[int, eg(1, "rules, on all pages")]
    next: NextUrl
    previous: PreviousUrl


class MuteAnswer(Answer):
    """Nobody is notified of events that all given fields fit, until it expires. An empty field fits everything."""

    id: Annotated[int, eg(1)]
    rule: Annotated[str, eg(_RULE)]
    hostname: Annotated[str, eg("")]
    gpu: Annotated[str, eg("", "a GPU's id, also for its MIG instances; or host/slot")]
    tag: Annotated[str, eg("rack", "the name of a tag of hosts or GPUs")]
    tag_value: Annotated[str, eg("r12")]
    starts: Annotated[Time, eg(_OPENED)]
    expires: Annotated[Time, eg("2025-07-18T22:42:34Z")]
    state: Annotated[Literal["active", "ended"], eg("active")]
    created_by: Annotated[str, eg("ada", "a user, or a token's name")]
    note: Annotated[str, eg("fans are replaced")]
    url: Annotated[Url, eg(f"{BASE}/mutes/1")]


class MutePageAnswer(Answer):
    """A page of mutes, the one that lasts longest first."""

    data: list[MuteAnswer]
    count: Annotated[int, eg(1, "matching mutes, on all pages")]
    next: NextUrl
    previous: PreviousUrl


class ActionBody(RequestBody):
    """Why a person does this to an event."""

    note: Annotated[str, eg("looking at the fan"), _text(MOST_NOTE)] = ""


class NoteBody(RequestBody):
    """A note on an event."""

    note: Annotated[str, eg("the fan was replaced"), _text(MOST_NOTE, 1)]


class MuteBody(RequestBody):
    """What to mute: all that is given must fit an event. At least one of rule, hostname, gpu and tag is needed; and either `for` or `expires`."""

    rule: Annotated[str, eg(_RULE, "a rule's name"), _text(64)] = ""
    hostname: Annotated[str, eg("", "a host of the inventory"), _text(255)] = ""
    gpu: Annotated[str, eg("", "a GPU's id, or host/slot for a slot without one"), _text(200)] = ""
    tag: Annotated[str, eg("rack", "the name of a tag of hosts or GPUs; with tag_value"), _text(64)] = ""
    tag_value: Annotated[str, eg("r12"), _text(255)] = ""
    for_: Annotated[str, eg("2h", "for how long, as 30m, 8h or 7d: one minute to a year"), _text(64)] = msgspec.field(
        default="", name="for"
    )
    expires: Annotated[str, eg("", "until when, RFC 3339, in place of `for`"), _text(64)] = ""
    note: Annotated[str, eg("fans are replaced"), _text(512)] = ""
