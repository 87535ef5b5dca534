"""Django's sessions in the database; a cookie that holds no key that we could have given is no session."""

from __future__ import annotations

from django.contrib.sessions.backends import db


class SessionStore(db.SessionStore):
    """PostgreSQL does not take every text that a cookie can hold, so one that is no key is never looked up."""

    def _validate_session_key(self, key: str | None) -> bool:
        return bool(key) and len(str(key)) >= 8 and str(key).isascii() and str(key).isalnum()
