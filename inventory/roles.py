"""Two groups for people who use the admin: those who only look, and those who also note things about hosts, GPUs and events."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Group, Permission
from django.db.models import Q

VIEWERS = "Viewers"
OPERATORS = "Operators"


def make_roles(using: str, **_: Any) -> None:
    """Creates the groups after a migration, and gives them what they lack. Permissions that a person added stay."""
    may_view = Q(content_type__app_label="inventory", codename__startswith="view_")
    may_see_history = Q(content_type__app_label="admin", codename="view_logentry")
    may_edit = Q(content_type__app_label="inventory", codename__in=("change_host", "change_gpu"))
    give_roles(using, may_view | may_see_history, may_edit)


def give_roles(using: str, viewers: Q, operators: Q) -> None:
    """Gives the groups what they lack of these permissions; operators have the viewers' too."""
    for name, allowed in ((VIEWERS, viewers), (OPERATORS, viewers | operators)):
        group, _created = Group.objects.using(using).get_or_create(name=name)
        group.permissions.add(*Permission.objects.using(using).filter(allowed))
