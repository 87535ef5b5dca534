"""Logging of every process: lines for people, or one JSON object a line (LOG_FORMAT=json). VERBOSITY sets how much.

A JSON line has ``time`` (UTC), ``level``, ``logger``, ``message``, ``event`` (the message's template, the same for every
event of a kind), ``service``, ``instance``, the event's own fields (``offset``, ``collector_id`` …) and, during a request
to the API, ``request_id``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from readings.text import printable

# The id of the request that this thread is answering, or answered last; empty elsewhere.
request_id: ContextVar[str] = ContextVar("request_id", default="")

ROOMS = ("telemetry_site", "broker", "ingest", "inventory", "stores", "health", "api", "dashboard")
# These loggers repeat a message while another service is away. Each message passes once in this many seconds.
REPEAT_S = 60.0
_REPEATING = ("psycopg.pool", "api.errors", "api.views.probes")


def log_config(form: str, verbosity: int, ids: Mapping[str, str]) -> dict[str, Any]:
    """Returns the argument of logging.config.dictConfig. Every JSON line contains ``ids``."""
    ours = {0: "WARNING", 1: "INFO"}.get(verbosity, "DEBUG")
    # Third-party loggers: errors always, debug output only at -v 3.
    others = {0: "WARNING", 3: "DEBUG"}.get(verbosity, "INFO")
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request": {"()": RequestFilter}, "repeats": {"()": RepeatFilter}},
        "formatters": {
            "human": {"()": HumanFormatter},
            "json": {"()": EventFormatter, "static_fields": dict(ids)},
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": form, "filters": ["request"]}},
        "root": {"handlers": ["stderr"], "level": others},
        "loggers": {
            "django": {"handlers": [], "level": others},
            # A client learns of its own mistakes from the answer. The log is for faults of the service.
            "django.request": {"level": "ERROR"},
            "django.security.DisallowedHost": {"level": "CRITICAL"},
            "psycopg.pool": {"level": "DEBUG" if verbosity == 3 else "WARNING", "filters": ["repeats"]},
            **{room: {"level": ours} for room in ROOMS},
            **{name: {"filters": ["repeats"]} for name in _REPEATING if name != "psycopg.pool"},
        },
    }


def process_ids(argv: Sequence[str], collector_id: str, instance_id: str, watch_id: str) -> dict[str, str]:
    """Names this process in its log: the service, and the instance where it has a name of its own."""
    program = Path(argv[0]).name if argv else ""
    command = argv[1] if program == "manage.py" and len(argv) > 1 else ""
    # `manage.py serve` replaces itself with gunicorn.
    service = command or ("serve" if "gunicorn" in "".join(argv[:1]) else program)
    names = {"collect": collector_id, "stream": instance_id, "watch": watch_id}
    return {"service": service} | ({"instance": names[service]} if service in names else {})


class RequestFilter(logging.Filter):
    """Adds the request's id to a record."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "request_id") and (current := request_id.get()):
            record.request_id = current
        return True


class RepeatFilter(logging.Filter):
    """Passes each warning of a logger once in REPEAT_S seconds. Passes everything below a warning."""

    def __init__(self) -> None:
        super().__init__()
        self._last_passed: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        key, now = (record.name, str(record.msg)), time.monotonic()
        if now - self._last_passed.get(key, -REPEAT_S) < REPEAT_S:
            return False
        self._last_passed[key] = now
        return True


class HumanFormatter(logging.Formatter):
    """``2026-01-31 12:00:00,000 INFO    broker.server.server: listening on …``.

    One record is one line, whatever clients have put into it, and the lines of its traceback are indented. So nobody can
    forge a line, or send an escape sequence to a terminal, by a host name, a client name or a URL.
    """

    def __init__(self) -> None:
        super().__init__("{asctime} {levelname:<7} {name}: {message}", style="{")

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = printable(super().formatMessage(record))
        request = getattr(record, "request_id", "")
        return f"{text} [request {request}]" if request else text

    def formatException(self, ei: Any) -> str:
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    return "\n".join(f"    {printable(line)}" for line in text.split("\n"))


class EventFormatter(JsonFormatter):
    """One JSON object a line."""

    def __init__(self, static_fields: dict[str, str]) -> None:
        super().__init__(
            ["levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
            # Attributes that frameworks add for their own use; their texts may be long.
            reserved_attrs=[*RESERVED_ATTRS, "request", "taskName", "color_message"],
            static_fields=static_fields,
            timestamp="time",
        )

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        super().add_fields(log_data, record, message_dict)
        log_data["event"] = str(record.msg)
        if isinstance(record.args, Mapping):  # named values of the message become fields
            log_data.update(record.args)
