"""What gunicorn says to a request that never gets as far as Django: too long, or no HTTP. In the API's shape."""

from __future__ import annotations

import json
import socket

from gunicorn import util

_CODES = {
    403: "forbidden",
    414: "uri_too_long",
    417: "expectation_failed",
    431: "headers_too_large",
    500: "server_error",
    501: "not_implemented",
}


def write_error(sock: socket.socket, status_int: int, reason: str, mesg: str) -> None:
    """In place of gunicorn's ``util.write_error``, which answers with a page."""
    text = " ".join((mesg or reason).split())
    body = json.dumps({"error": _CODES.get(status_int, "bad_request"), "message": text}).encode()
    head = (
        f"HTTP/1.1 {status_int} {reason}\r\n"
        "Connection: close\r\n"
        "Content-Type: application/json\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    util.write_nonblock(sock, head.encode("latin-1") + body)
