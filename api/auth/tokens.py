"""Creates, finds and revokes tokens.

A token is 32 random bytes. Reversing its digest is as hard as guessing the token, so no slow hash is needed. Each web
process caches look-ups for a few seconds; for that long a revoked token may still work.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from django.db import DatabaseError
from django.db.models import Q, QuerySet
from django.utils import timezone

from api.models import ApiToken, TokenScope

logger = logging.getLogger(__name__)

PREFIX = "gputel_"  # so that a token in a file or a log can be recognised
REMEMBER_SECONDS = 5.0
LAST_USED_STEP = timedelta(minutes=1)
_HINT_LENGTH = len(PREFIX) + 4


class TokenRefused(Exception):
    """The token is not valid. The text says why."""


class TokenGrant(NamedTuple):
    """The token that a request came with, and what it allows."""

    id: int
    name: str
    scope: str
    expires: datetime | None


@dataclass(slots=True)
class _Remembered:
    """The result of a look-up, and until when (by the monotonic clock) it counts."""

    until: float = 0.0
    grant: TokenGrant | None = None


@lru_cache(maxsize=4096)
def _remembered(digest: str) -> _Remembered:
    return _Remembered()


def make_token(name: str, scope: str = TokenScope.READ, expires: datetime | None = None) -> tuple[ApiToken, str]:
    """Create a token. Returns its row and the token itself, which is not stored. Raises ValidationError."""
    row = ApiToken(name=name, scope=scope, expires=expires)
    secret = fill_token(row)
    row.full_clean()
    row.save()
    return row, secret


def fill_token(row: ApiToken) -> str:
    """Give an unsaved row a new token. Returns the token itself."""
    secret = PREFIX + secrets.token_urlsafe(32)
    row.digest, row.hint = digest_of(secret), secret[:_HINT_LENGTH]
    return secret


def digest_of(secret: str) -> str:
    """The digest that is stored for a token."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def revoke(tokens: QuerySet[ApiToken]) -> int:
    """Revoke tokens: now in this process, within ``REMEMBER_SECONDS`` in others. Returns how many were active."""
    count = tokens.filter(revoked=None).update(revoked=timezone.now())
    forget()
    return count


def forget() -> None:
    """Empty the cache of look-ups."""
    _remembered.cache_clear()


def find_token(secret: str) -> TokenGrant:
    """The grant of a token. Raises TokenRefused, or DatabaseError when the database does not answer."""
    digest = digest_of(secret)
    now = time.monotonic()
    entry = _remembered(digest)
    if entry.until <= now:
        # In this order: another thread that sees the new time must see the new grant.
        entry.grant = _look_up(digest)
        entry.until = now + REMEMBER_SECONDS
    grant = entry.grant
    if grant is None:
        raise TokenRefused("the token is not known, or was revoked")
    if grant.expires is not None and grant.expires <= timezone.now():
        raise TokenRefused("the token has expired")
    return grant


def _look_up(digest: str) -> TokenGrant | None:
    row = ApiToken.objects.filter(digest=digest, revoked=None).first()
    if row is None:
        return None
    if row.state() == "active":
        _note_use(row)
    return TokenGrant(row.pk, row.name, row.scope, row.expires)


def _note_use(row: ApiToken) -> None:
    """Store the time of use, at most once a minute whatever the number of requests and processes."""
    now = timezone.now()
    if row.last_used is not None and now - row.last_used < LAST_USED_STEP:
        return
    due = Q(last_used=None) | Q(last_used__lte=now - LAST_USED_STEP)
    try:
        ApiToken.objects.filter(due, pk=row.pk).update(last_used=now)
    except DatabaseError as error:  # the request is answered all the same
        logger.warning("the last use of token %r could not be written: %s", row.name, error)
