"""Asks a service on this machine whether it is well: ``manage.py health runbroker``, for container health checks.

Container platforms run it every few seconds, so it loads no Django. Exit status 0: well; 1: not, and one line says why.
"""

from __future__ import annotations

import argparse
import json
import ssl
import sys
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection

from telemetry_site import options
from telemetry_site.env import Address, SettingError, duration

MOST_BYTES = 64 * 1024
PATHS = {"health": "/health", "ready": "/ready"}


class Unwell(Exception):
    """The service does not answer, or answers with something other than 200. The text is one line."""


def main(argv: Sequence[str]) -> int:
    """Runs ``manage.py health`` with these arguments and returns the exit status."""
    parser = argparse.ArgumentParser(prog="manage.py health", description="Ask a service here whether it is well.")
    add_arguments(parser)
    asked = parser.parse_args(argv)
    return run(asked.service, ready=asked.ready, timeout=asked.timeout)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the service, --ready and --timeout."""
    parser.add_argument("service", choices=list(ADDRESSES), help="the command that runs the service")
    parser.add_argument(
        "--ready", action="store_true", help="whether it can do its work, not only whether the process is well (/ready)"
    )
    parser.add_argument("--timeout", type=_seconds, default=3.0, help="longest time for the answer [default 3s]")


def run(service: str, *, ready: bool = False, timeout: float = 3.0) -> int:
    """Asks the service, writes what is wrong to stderr and returns the exit status."""
    try:
        check(service, ready=ready, timeout=timeout)
    except (Unwell, SettingError) as error:
        sys.stderr.write(f"{service}: {error}\n")
        return 1
    return 0


def check(service: str, *, ready: bool = False, timeout: float = 3.0) -> None:
    """Raises Unwell when the service is not well, SettingError when no setting says where it listens."""
    setting = ADDRESSES[service]
    address = _address(setting)
    if address is None or address.port == 0:
        raise SettingError(f"{setting} is not set to a fixed port, so there is nothing to ask")
    # The broker has no /ready: it depends on no other service.
    path = PATHS["ready" if ready and service != "runbroker" else "health"]
    encrypted = service == "runbroker" and bool(options.BROKER_TLS_CERT.read())
    try:
        status, body = _get(address.reachable, path, timeout, encrypted=encrypted)
    except HTTPException as error:
        raise Unwell(f"{address.reachable} does not answer: the answer is no HTTP") from error
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


# The setting that says where each command listens.
ADDRESSES = {
    "runbroker": "HTTP_ADDR",
    "collect": "METRICS_ADDR",
    "stream": "METRICS_ADDR",
    "watch": "METRICS_ADDR",
    "serve": "PORT",
}


def _get(address: Address, path: str, timeout: float, *, encrypted: bool) -> tuple[int, bytes]:
    """Returns status and body. Raises OSError or HTTPException."""
    if encrypted:
        context = ssl.create_default_context()
        # A service on this machine need not prove who it is.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection: HTTPConnection = HTTPSConnection(address.host, address.port, timeout=timeout, context=context)
    else:
        connection = HTTPConnection(address.host, address.port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Host": "localhost", "Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read(MOST_BYTES)
    finally:
        connection.close()


def _reason(body: bytes) -> str:
    """The reasons in the body, on one line."""
    try:
        answer = json.loads(body)
        reasons = answer.get("reasons") or [answer["message"]]
        text = "; ".join(map(str, reasons))
    except (ValueError, KeyError, TypeError, AttributeError):
        text = body[:200].decode("utf-8", "replace")
    return " ".join(text.split()) or "nothing"


def _seconds(text: str) -> float:
    try:
        return duration()(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
