"""/health and /ready, for load balancers and container platforms."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from django.conf import settings
from django.db import DatabaseError
from rest_framework.request import Request
from rest_framework.response import Response

from api.browse.renderers import JsonRenderer
from api.errors import RETRY_AFTER_SECONDS
from api.schema.answers import HealthAnswer, NotReadyAnswer, ReadyAnswer, ReadyChecksAnswer
from api.server import RECEIVED_AT
from api.views.base import ApiView
from inventory.migrating import HOW
from inventory.models import GPU
from inventory.status import stores_elsewhere
from stores.base import StoreError
from stores.open import describe_store, get_store, store_key

logger = logging.getLogger(__name__)

OK = "ok"


class _Embedded:
    """The collector inside this process (memory storage). The site sets ``trouble``: why it ended, or nothing."""

    def __init__(self) -> None:
        self.trouble: Callable[[], str] = lambda: ""


embedded = _Embedded()


class _Elsewhere:
    """What was last said about collectors that write to another store. The log says it once."""

    said = ""


def check_collectors() -> str:
    """``ok``, or which collectors write to another store than the one that this service reads."""
    try:
        others = stores_elsewhere(store_key())
    except DatabaseError:  # check_database says so
        return OK
    where = ", ".join(f"{each.collector_id} to {each.store}" for each in others[:5])
    if where != _Elsewhere.said:
        _Elsewhere.said = where
        if where:
            logger.warning("collectors store elsewhere: %s; this service answers from %s", where, describe_store())
        else:
            logger.info("a collector stores where this service reads")
    if not others:
        return OK
    # The names of files and servers are for the log only: anybody may ask.
    kinds = " and ".join(sorted({each.store.partition(",")[0] for each in others}))
    return f"collectors write to another store ({kinds}) than this service reads ({settings.STORAGE_TYPE}): the log names them"


def check_database() -> str:
    """``ok``, or what is wrong, in one line. The query reads a real table, so a database without migrations is not ok."""
    try:
        GPU.objects.exists()
    except DatabaseError as error:
        logger.warning("the database does not answer: %s", error)
        return f"does not answer, or lacks migrations of this version ({HOW})"
    return OK


def check_store() -> str:
    """``ok``, or what is wrong, in one line."""
    try:
        get_store().ping()
    except StoreError as error:
        logger.warning("the store does not answer: %s", error)
        return "does not answer"
    return OK


def check_all() -> tuple[dict[str, str], list[str]]:
    """The state of each part, and what is broken, in words."""
    database, store, trouble = check_database(), check_store(), embedded.trouble()
    parts = {"database": database, "store": store, "collector": trouble or OK}
    broken = [f"the {part} {state}" for part, state in parts.items() if state != OK]
    # Readings that go elsewhere are no reason to answer no question.
    return (parts if trouble or database != OK else parts | {"collector": check_collectors()}), broken


class _Checked:
    """The last look at the parts. Those who asked before it began share it, so many who ask at once cost no more than one."""

    def __init__(self) -> None:
        self._began = float("-inf")
        self._found: tuple[dict[str, str], list[str]] = {}, []

    def since(self, received_at: float) -> tuple[dict[str, str], list[str]]:
        """What check_all() says, or has said of a time after this one, by the monotonic clock."""
        if received_at >= self._began:
            began = time.monotonic()
            self._found = check_all()
            self._began = began
        return self._found


_checked = _Checked()


class HealthView(ApiView):
    """The web process answers. Its database and store are not checked, because a restart would not repair them."""

    name = "Health"
    tag = "probes"
    operation_id = "health"
    answer = HealthAnswer
    error_statuses = (400,)
    renderer_classes = (JsonRenderer,)

    def get(self, request: Request) -> Response:
        """The web process answers."""
        return Response(HealthAnswer("healthy"))


class ReadyView(ApiView):
    """The database and the store answer, so requests can be served. A 503 names the one that does not.

    `collector` says when the collectors at work write to another store than the one that this service reads: that is no 503.
    With memory storage the collector is a part of this service; once it has ended, the answer is 503.
    """

    name = "Readiness"
    tag = "probes"
    operation_id = "ready"
    answer = ReadyAnswer
    renderer_classes = (JsonRenderer,)

    def get(self, request: Request) -> Response:
        """The database and the store answer. A 503 names the one that does not."""
        checks, broken = _checked.since(request.META.get(RECEIVED_AT, float("inf")))
        if not broken:
            return Response(ReadyAnswer("ready", ReadyChecksAnswer(**checks)))
        body = NotReadyAnswer("unavailable", "; ".join(broken), ReadyChecksAnswer(**checks))
        return Response(body, status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
