"""What to say about a server that is not this broker."""

from __future__ import annotations

_SHOWN = 80
_TLS = (b"\x15\x03", b"\x16\x03")


def not_this_broker(where: str, seen: bytes) -> str:
    """Says that the server at ``where`` is another one, and what its first bytes (``seen``) look like."""
    return f"what is at {where} is not this broker, or too old: {_description(seen)}"


def _description(seen: bytes) -> str:
    if seen.startswith(_TLS):
        return "it speaks TLS (set BROKER_TLS_CA)"
    if seen.startswith(b"HTTP/"):
        return f"it speaks HTTP: {_shown(seen.splitlines()[0])}"
    if seen[:1] == b"\x00" and len(seen) > 4:  # a frame like ours
        return f"it answers a hello with {_shown(seen[4:])}"
    return f"it says {_shown(seen)}"


def _shown(data: bytes) -> str:
    text = data[:_SHOWN].decode("utf-8", "backslashreplace")
    text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return text + ("…" if len(data) > _SHOWN else "")
