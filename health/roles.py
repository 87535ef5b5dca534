"""What the groups of the admin's users may do with events, mutes and notices."""

from __future__ import annotations

from typing import Any

from django.db.models import Q

from inventory.roles import give_roles


def make_health_roles(using: str, **_: Any) -> None:
    """After a migration: viewers see everything, operators act on events, mute, and have notices sent again."""
    ours = Q(content_type__app_label="health")
    may_act = Q(codename__in=("change_event", "add_mute", "change_mute", "change_notice"))
    give_roles(using, ours & Q(codename__startswith="view_"), ours & may_act)
