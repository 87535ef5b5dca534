"""How every process logs: lines for people, or one JSON object a line (LOG_FORMAT=json); as much as VERBOSITY says.

A JSON line has ``time`` (UTC), ``level``, ``logger``, ``message``, ``event`` (the message before its values were put in, so
the same for every event of a kind), ``service``, ``instance``, the fields that the event itself gives (``offset``,
``collector_id`` …) and, of a request to the API, ``request_id``.
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

# Of the request that this thread answers, or answered last; empty elsewhere.
request_id: ContextVar[str] = ContextVar("request_id", default="")

ROOMS = ("telemetry_site", "broker", "ingest", "inventory", "stores", "api")
# What is told again and again while a partner is away is told once in so many seconds.
REPEAT_S = 60.0
_REPEATING = ("psycopg.pool", "api.errors", "api.views.probes")


def log_config(form: str, verbosity: int, ids: Mapping[str, str]) -> dict[str, Any]:
    """For logging.config.dictConfig. ``ids`` are in every JSON line."""
    ours = {0: "WARNING", 1: "INFO"}.get(verbosity, "DEBUG")
    # Errors of others are told at any verbosity, and what they tell of themselves only when all is wanted.
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
            # What a client did wrong is told to the client; the log is for what is wrong here.
            "django.request": {"level": "ERROR"},
            "django.security.DisallowedHost": {"level": "CRITICAL"},
            "psycopg.pool": {"level": "DEBUG" if verbosity == 3 else "WARNING", "filters": ["repeats"]},
            **{room: {"level": ours} for room in ROOMS},
            **{name: {"filters": ["repeats"]} for name in _REPEATING if name != "psycopg.pool"},
        },
    }


def process_ids(argv: Sequence[str], collector_id: str, instance_id: str) -> dict[str, str]:
    """What to call this process in its log: its service, and its own name where it has one."""
    program = Path(argv[0]).name if argv else ""
    command = argv[1] if program == "manage.py" and len(argv) > 1 else ""
    # gunicorn is what `manage.py serve` becomes.
    service = command or ("serve" if "gunicorn" in "".join(argv[:1]) else program)
    names = {"collect": collector_id, "stream": instance_id}
    return {"service": service} | ({"instance": names[service]} if service in names else {})


class RequestFilter(logging.Filter):
    """Gives a record the id of the request that it belongs to."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "request_id") and (current := request_id.get()):
            record.request_id = current
        return True


class RepeatFilter(logging.Filter):
    """Lets each message of a logger through once in REPEAT_S seconds, unless it is for debugging."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        key, now = (record.name, str(record.msg)), time.monotonic()
        if now - self._told.get(key, -REPEAT_S) < REPEAT_S:
            return False
        self._told[key] = now
        return True


class HumanFormatter(logging.Formatter):
    """``2026-01-31 12:00:00,000 INFO    broker.server.server: listening on …``."""

    def __init__(self) -> None:
        super().__init__("{asctime} {levelname:<7} {name}: {message}", style="{")

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        told = getattr(record, "request_id", "")
        return f"{text} [request {told}]" if told else text


class EventFormatter(JsonFormatter):
    """One JSON object a line."""

    def __init__(self, static_fields: dict[str, str]) -> None:
        super().__init__(
            ["levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
            # Kept by frameworks for themselves; their texts may be long.
            reserved_attrs=[*RESERVED_ATTRS, "request", "taskName", "color_message"],
            static_fields=static_fields,
            timestamp="time",
        )

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        super().add_fields(log_data, record, message_dict)
        log_data["event"] = str(record.msg)
        if isinstance(record.args, Mapping):  # values that the message names are fields too
            log_data.update(record.args)
