"""Whether the database and the store answer now: what /ready and /metrics tell."""

from __future__ import annotations

import logging

from django.db import DatabaseError

from inventory.models import GPU
from stores.base import StoreError
from stores.open import get_store

logger = logging.getLogger(__name__)

OK = "ok"


def check_database() -> str:
    """``ok``, or one line that says what is wrong. Asks a real table, so a database that was not migrated is not ok."""
    try:
        GPU.objects.exists()
    except DatabaseError as error:
        logger.warning("the database does not answer: %s", error)
        return "does not answer, or was not migrated"
    return OK


def check_store() -> str:
    """``ok``, or one line that says what is wrong."""
    try:
        get_store().ping()
    except StoreError as error:
        logger.warning("the store does not answer: %s", error)
        return "does not answer"
    return OK


def check_all() -> dict[str, str]:
    """What each part that an answer needs says of itself."""
    return {"database": check_database(), "store": check_store()}
