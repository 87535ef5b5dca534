"""Tokens as rows."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.utils import timezone

from api.models import ApiToken

pytestmark = pytest.mark.django_db


def token(name: str, digest: str, **values: object) -> ApiToken:
    return ApiToken.objects.create(name=name, digest=digest, hint="h", **values)


def test_a_name_is_free_again_when_its_token_is_revoked() -> None:
    token("grafana", "a", revoked=timezone.now())
    token("grafana", "b", revoked=timezone.now())
    token("grafana", "c")
    with pytest.raises(ValidationError, match="revoke it, or choose another"):
        ApiToken(name="grafana", digest="d", hint="h").full_clean()
    with pytest.raises(IntegrityError):
        token("grafana", "d")


def test_its_state() -> None:
    now = timezone.now()
    assert ApiToken().state() == "active"
    assert ApiToken(expires=now + timedelta(seconds=1)).state(now) == "active"
    assert ApiToken(expires=now).state(now) == "expired"
    assert ApiToken(expires=now, revoked=now).state(now) == "revoked"
    assert str(ApiToken(name="grafana")) == "grafana"
