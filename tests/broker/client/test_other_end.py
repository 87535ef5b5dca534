from __future__ import annotations

from broker.client.other_end import not_this_broker


def test_what_was_seen_is_short_and_harmless() -> None:
    said = not_this_broker("mq:9000", b"\x00\x00\x10\x00" + b"\x1b" + b"x" * 300)
    assert said.startswith("what is at mq:9000 is not this broker, or too old: it answers a hello with ")
    assert said.isprintable()
    assert said.endswith("xx…")
    assert len(said) < 200
