"""What ``manage.py check --deploy`` says of access."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Tags, Warning, register


@register(Tags.security, deploy=True)
def check_access(**kwargs: Any) -> list[CheckMessage]:
    """Reading should need a token or a login wherever the service is deployed."""
    if settings.API_AUTH_REQUIRED:
        return []
    if settings.API_AUTH_REQUIRED is None:
        who = "On the loopback, everyone on this machine (also a proxy that adds no header)"
    else:
        who = "Everyone who can reach the service"
    text = f"{who} can read all telemetry without a token or a login."
    return [Warning(text, hint="Set API_AUTH_REQUIRED=true.", id="api.W001")]
