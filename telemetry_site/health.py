"""Asks a service on this machine whether it is well: ``manage.py health runbroker``, for container health checks.

It is run every few seconds, so it loads no Django and no HTTP library. Exit status 0: well; 1: not, and a line says why.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
from collections.abc import Sequence

from telemetry_site import options
from telemetry_site.env import Address, SettingError, duration

MOST_BYTES = 64 * 1024
PATHS = {"health": "/health", "ready": "/ready"}


class Unwell(Exception):
    """The service does not answer, or not with a 200. The text is one line."""


def main(argv: Sequence[str]) -> int:
    """What ``manage.py health`` does with these arguments; returns the exit status."""
    parser = argparse.ArgumentParser(prog="manage.py health", description="Ask a service here whether it is well.")
    add_arguments(parser)
    asked = parser.parse_args(argv)
    return run(asked.service, ready=asked.ready, timeout=asked.timeout)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The service, --ready and --timeout."""
    parser.add_argument("service", choices=list(ADDRESSES), help="the command that runs the service")
    parser.add_argument(
        "--ready", action="store_true", help="whether it can do its work, not only whether the process is well (/ready)"
    )
    parser.add_argument("--timeout", type=_seconds, default=3.0, help="longest time for the answer [default 3s]")


def run(service: str, *, ready: bool = False, timeout: float = 3.0) -> int:
    """Ask, and say on stderr what is wrong; returns the exit status."""
    try:
        check(service, ready=ready, timeout=timeout)
    except (Unwell, SettingError) as error:
        sys.stderr.write(f"{service}: {error}\n")
        return 1
    return 0


def check(service: str, *, ready: bool = False, timeout: float = 3.0) -> None:
    """Raises Unwell when the service is not well, SettingError when the settings do not say where it is."""
    setting = ADDRESSES[service]
    address = _address(setting)
    if address is None or address.port == 0:
        raise SettingError(f"{setting} is not set to a fixed port, so there is nothing to ask")
    # The broker tells at /health alone; what it needs is in itself.
    path = PATHS["ready" if ready and service != "runbroker" else "health"]
    encrypted = service == "runbroker" and bool(options.BROKER_TLS_CERT.read())
    try:
        status, body = _get(address.reachable, path, timeout, encrypted=encrypted)
    except OSError as error:
        raise Unwell(f"{address.reachable} does not answer: {error.strerror or error}") from error
    if status != 200:
        raise Unwell(f"{path} says {status}: {_reason(body)}")


def _address(setting: str) -> Address | None:
    match setting:
        case "HTTP_ADDR":
            return options.HTTP_ADDR.read()
        case "METRICS_ADDR":
            return options.METRICS_ADDR.read()
        case _:
            return Address(options.HOST.read(), options.PORT.read())


# Each service by its command, and the setting that says where it answers.
ADDRESSES = {"runbroker": "HTTP_ADDR", "collect": "METRICS_ADDR", "stream": "METRICS_ADDR", "serve": "PORT"}


def _get(address: Address, path: str, timeout: float, *, encrypted: bool) -> tuple[int, bytes]:
    """Status and body. Raises OSError, also when the answer is no HTTP or the whole takes longer than ``timeout``."""
    deadline = time.monotonic() + timeout
    connection = socket.create_connection((address.host, address.port), timeout)
    try:
        if encrypted:
            import ssl

            # Whether a service on this machine is well needs no proof of who it is.
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            connection = context.wrap_socket(connection)
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = bytearray()
        while len(answer) < MOST_BYTES:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            part = connection.recv(MOST_BYTES)
            if not part:
                break
            answer += part
    finally:
        connection.close()
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise OSError("the answer is no HTTP")
    return int(words[1]), body


def _reason(body: bytes) -> str:
    """What the body says is wrong, on one line."""
    try:
        told = json.loads(body)
        reasons = told.get("reasons") or [told["message"]]
        text = "; ".join(map(str, reasons))
    except (ValueError, KeyError, TypeError, AttributeError):
        text = body[:200].decode("utf-8", "replace")
    return " ".join(text.split()) or "nothing"


def _seconds(text: str) -> float:
    try:
        return duration()(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
