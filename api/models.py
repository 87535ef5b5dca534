"""API tokens, for programs. People log in as Django users."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Literal

from django.core.exceptions import ValidationError
from django.core.validators import ProhibitNullCharactersValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone


class TokenScope(models.TextChoices):
    """What a token allows. ``admin`` may also list the tokens, and change events and mutes."""

    READ = "read"
    ADMIN = "admin"


class ApiToken(models.Model):
    """A program's permission to use the API. Only a digest of the token is stored, so it can be shown only once.

    A revoked token's row stays, so that its name and last use can be looked up. Its name can be used again.
    """

    name = models.CharField(
        max_length=128, validators=[ProhibitNullCharactersValidator()], help_text="whose it is, or what it is for"
    )
    scope = models.CharField(
        max_length=16,
        choices=TokenScope,
        default=TokenScope.READ,
        help_text="read: every question; admin: also /api/v1/tokens, and changes of events and mutes",
    )
    digest = models.CharField(max_length=64, unique=True, editable=False)
    hint = models.CharField(max_length=16, editable=False, help_text="how the token begins")
    created = models.DateTimeField(auto_now_add=True)
    expires = models.DateTimeField(null=True, blank=True, help_text="UTC; empty: never")
    revoked = models.DateTimeField(null=True, blank=True, editable=False)
    last_used = models.DateTimeField(null=True, blank=True, editable=False, help_text="to the minute")

    class Meta:
        ordering = ("name", "-created")
        verbose_name = "API token"
        constraints = (
            models.UniqueConstraint(
                fields=("name",),
                condition=Q(revoked=None),
                name="one_token_per_name",
            ),
        )

    def __str__(self) -> str:
        return self.name

    def validate_unique(self, exclude: Collection[str] | None = None) -> None:
        """Check the constraint, which the admin's form skips because it has no field ``revoked``."""
        super().validate_unique(exclude)
        if "name" in (exclude or ()):  # it is invalid anyway
            return
        if ApiToken.objects.filter(name=self.name, revoked=None).exclude(pk=self.pk).exists():
            raise ValidationError({"name": "there is a token of this name: revoke it, or choose another name"})

    def state(self, now: datetime | None = None) -> Literal["active", "expired", "revoked"]:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked is not None:
            return "revoked"
        if self.expires is not None and self.expires <= (now or timezone.now()):
            return "expired"
        return "active"
