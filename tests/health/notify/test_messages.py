"""What people read."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from health.models import Event, Notice
from health.notify.messages import MOST_LINES, ChannelMessage, MessageType, Wording, compose, plain, where
from tests.health.building import NOON

WORDING = Wording(public_url="https://gpus.example.com/x")
NOW = NOON + timedelta(minutes=4)


def event(number: int = 17, **fields: Any) -> Event:
    return Event(
        pk=number,
        **{
            "rule": "temp_high",
            "entity_kind": "gpu",
            "entity": "GPU-1a2b3c4d-0000-0000-0000-000000000001",
            "severity": "critical",
            "state": "open",
            "hostname": "node-1",
            "slot": 3,
            "model_name": "NVIDIA H100 80GB HBM3",
            "opened": NOON,
            "last_seen": NOON,
            "summary": "90 °C, limit 85 °C",
            "action": "reset_gpu",
        }
        | fields,
    )


def message(*events: Event, kind: str = "opened", digest: bool = False, wording: Wording = WORDING) -> ChannelMessage:
    return compose([Notice(event=each, kind=kind) for each in events], "k1", wording, NOW, digest=digest)


def test_one_event_in_full() -> None:
    found = message(event(count=3, namespace="ml", pod="train-0"))
    assert found.title == "CRITICAL: temp_high on node-1 · gpu 3"
    assert found.type is MessageType.CRITICAL
    assert found.body.splitlines() == [
        "Where: node-1 · gpu 3 · 1a2b3c4d · NVIDIA H100 80GB HBM3",
        "Pod: ml/train-0",
        "What: 90 °C, limit 85 °C, 3 times",
        "Since: 2026-03-01 12:00:00 UTC, 4m ago",
        "To do: Drain the GPU and reset it.",
        "",
        "https://gpus.example.com/x/events/17",
        "Key: k1",
    ]
    assert "\n/events/17\n" in message(event(), wording=Wording()).body


def test_what_is_over_says_how_long_it_lasted() -> None:
    over = event(state="closed", closed=NOON + timedelta(hours=2, minutes=1), resolved_by="ann")
    found = message(over, kind="closed")
    assert found.title == "RESOLVED: temp_high on node-1 · gpu 3"
    assert found.type is MessageType.RESOLVED
    assert "Since: 2026-03-01 12:00:00 UTC, it lasted 2h 1m" in found.body
    assert "Resolved by: ann" in found.body
    assert "To do" not in found.body
    both = compose([Notice(event=over, kind=kind) for kind in ("opened", "closed")], "k", WORDING, NOW)
    assert both.title == "CRITICAL: temp_high on node-1 · gpu 3, over again"


def test_subject_state_and_reminder() -> None:
    assert message(event(rule="xid_fatal", subject="79")).title == "CRITICAL: xid_fatal (79) on node-1 · gpu 3"
    assert message(event(), kind="reminder").title.endswith(", still open")
    assert "State: unknown" in message(event(state="unknown")).body


def test_where_it_is() -> None:
    assert where(event(entity_kind="host", entity="node-1")) == "node-1"
    assert where(event(entity_kind="slot", entity="node-1/3")) == "node-1 · slot 3"
    assert where(event(entity_kind="source", entity="streamer-1", hostname="")) == "source streamer-1"
    assert where(event(entity_kind="fleet", entity="", hostname="")) == "the fleet"
    assert where(event(entity="GPU-1a2b3c4d-0000:7", slot=None)) == "node-1 · 1a2b3c4d:7 · NVIDIA H100 80GB HBM3"


def test_several_events_have_a_line_each_the_worst_first() -> None:
    events = [event(1, severity="warning"), event(2), event(3, hostname="node-2", state="closed", closed=NOW)]
    found = message(*events)
    assert found.title == "CRITICAL: 3 × temp_high on 2 hosts"
    lines = found.body.splitlines()
    assert [line.split(" · ")[0] for line in lines[:3]] == ["CRITICAL", "CRITICAL", "WARNING"]
    assert lines[0].endswith("https://gpus.example.com/x/events/2")
    assert lines[-2:] == ["All events: https://gpus.example.com/x/events", "Key: k1"]
    same = message(event(1), event(2, entity="GPU-2", state="closed", closed=NOW), kind="closed")
    assert same.title == "CRITICAL: 1 × temp_high on node-1, 1 over"
    assert (
        message(*[event(n, entity=f"GPU-{n}", state="closed", closed=NOW) for n in (1, 2)], kind="closed").title
        == "RESOLVED: 2 × temp_high on node-1"
    )


def test_several_events_of_one_gpu_are_one_fault_with_all_that_is_to_do() -> None:
    found = message(
        event(1, rule="remap_pending", severity="warning", action="run_diag"), event(2), event(3, rule="slow")
    )
    assert found.title == "CRITICAL: temp_high on node-1 · gpu 3, and 2 more"
    assert [line for line in found.body.splitlines() if line.startswith("To do")] == [
        "To do about temp_high: Drain the GPU and reset it.",
        "To do about remap_pending: Run DCGM's diagnostics (dcgmi diag -r 3) when the GPU is free.",
    ]
    assert "To do: Drain the GPU and reset it." in message(event(2), event(3, rule="slow")).body
    assert (
        "To do"
        not in message(event(state="closed", closed=NOW), event(3, state="closed", closed=NOW), kind="closed").body
    )


def test_a_digest_counts_by_rule_and_is_bounded() -> None:
    events = [event(number, rule=f"rule_{number % 15}", hostname=f"node-{number}") for number in range(1000)]
    found = message(*events, digest=True)
    assert found.title == "CRITICAL (digest): 1000 events on 1000 hosts"
    lines = found.body.splitlines()
    assert "rule_0: 67 open, on 67 hosts" in lines
    assert "… and 5 more rules" in lines
    assert any(line.startswith("… and 99") for line in lines)
    assert len(lines) <= MOST_LINES + 6
    assert len(found.body) < 10_000


def test_names_that_exporters_give_mean_nothing_to_a_chat_and_make_no_line() -> None:
    evil = event(
        hostname="node-1\r\nBcc: all@example.com",
        model_name="<!channel> @here `rm`",
        pod="x\u202ey",
        namespace="[reset](https://evil.example)",
        summary="a\nb" + "c" * 600,
    )
    found = message(evil)
    assert "\n" not in found.title
    assert "\r" not in found.title
    assert found.body.count("\n") == message(event(pod="x")).body.count("\n")
    for sign in ("<", "@", "`", "\u202e", "[", "]", "://evil"):
        assert sign not in found.title + found.body
    assert "［reset］" in found.body
    assert max(map(len, found.body.splitlines())) < 600
    assert plain("a" * 300) == "a" * 99 + "…"
