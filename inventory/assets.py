"""Changes of what people note about hosts and GPUs, each with its entry in the history: who, when, old and new value.

The history is Django's admin log. What collectors write never comes here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import label_for_field
from django.contrib.contenttypes.models import ContentType
from django.db import transaction

from inventory.models import GPU, AssetState, Host
from inventory.sync.bulk import fetch_locked, update_rows

NOTHING = "–"
_LOGGED_AT_ONCE = 1000


def describe(field: str, old: Any, new: Any) -> str:
    """``owner: ml → infra``; for tags each tag that differs."""
    if field == "tags":
        names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
        return ", ".join(f"tag {name}: {old.get(name, NOTHING)} → {new.get(name, NOTHING)}" for name in names)
    return f"{label_for_field(field, Host)}: {shown_value(field, old)} → {shown_value(field, new)}"


def shown_value(field: str, value: Any) -> str:
    """The value in words; the dash for nothing."""
    if field == "tags":
        return ", ".join(f"{name}: {each}" for name, each in sorted(value.items())) or NOTHING
    if field == "asset_state":
        return str(AssetState(value).label)
    return NOTHING if value is None or value == "" else str(value)


def history_message(changes: Collection[str]) -> list[dict[str, Any]]:
    """What the admin log keeps of these changes (see ``describe``); empty without any."""
    return [{"changed": {"fields": list(changes)}}] if changes else []


@transaction.atomic
def change_assets(
    model: type[Host] | type[GPU], keys: Collection[str], field: str, new_value: Callable[[Any], Any], user_id: int
) -> int:
    """Sets a field of many rows to ``new_value(old value)``. Returns how many that changed. Raises django.db.Error.

    ``keys`` are names of hosts or ids of GPUs. A row that is gone is passed over.
    """
    # In the order in which collectors lock rows.
    rows = fetch_locked(model._default_manager, "name" if model is Host else "id", keys)
    changed = []
    entries = []
    content_type_id = ContentType.objects.get_for_model(model).pk
    for row in rows.values():
        old = getattr(row, field)
        new = new_value(old)
        if new == old:
            continue
        setattr(row, field, new)
        changed.append(row)
        entries.append(
            LogEntry(
                user_id=user_id,
                content_type_id=content_type_id,
                object_id=str(row.pk),
                object_repr=str(row)[:200],
                action_flag=CHANGE,
                change_message=json.dumps(history_message([describe(field, old, new)])),
            )
        )
    update_rows(changed, (field,))
    LogEntry.objects.bulk_create(entries, batch_size=_LOGGED_AT_ONCE)
    return len(changed)
