"""/health and /ready, for load balancers and container platforms."""

from __future__ import annotations

import logging

from django.db import DatabaseError
from rest_framework.request import Request
from rest_framework.response import Response

from api.browse.renderers import JsonRenderer
from api.errors import RETRY_AFTER_SECONDS
from api.schema.answers import HealthAnswer, NotReadyAnswer, ReadyAnswer, ReadyChecksAnswer
from api.views.base import ApiView
from inventory.migrating import HOW
from inventory.models import GPU
from stores.base import StoreError
from stores.open import get_store

logger = logging.getLogger(__name__)

OK = "ok"


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
    """The database and the store answer, so requests can be served. A 503 names the one that does not."""

    name = "Readiness"
    tag = "probes"
    operation_id = "ready"
    answer = ReadyAnswer
    renderer_classes = (JsonRenderer,)

    def get(self, request: Request) -> Response:
        """The database and the store answer. A 503 names the one that does not."""
        checks = {"database": check_database(), "store": check_store()}
        broken = [f"the {part} {state}" for part, state in checks.items() if state != OK]
        if not broken:
            return Response(ReadyAnswer("ready", ReadyChecksAnswer(**checks)))
        body = NotReadyAnswer("unavailable", "; ".join(broken), ReadyChecksAnswer(**checks))
        return Response(body, status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
