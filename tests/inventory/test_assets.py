"""inventory.assets: changes in words, and changes of many rows with their history."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User

from inventory.assets import change_assets, describe, shown_value
from inventory.models import GPU, Host
from tests.inventory.building import fleet, save


@pytest.mark.parametrize(
    ("field", "old", "new", "words"),
    [
        ("asset_state", "active", "maintenance", "state: active → in maintenance"),
        ("owner", "", "ml", "owner: – → ml"),
        ("notes", "a fan", "", "notes: a fan → –"),
        ("expected_gpus", None, 0, "expected GPUs: – → 0"),
        ("expected_gpus", 8, None, "expected GPUs: 8 → –"),
        (
            "tags",
            {"same": "1", "rack": "r1", "old": "x"},
            {"same": "1", "rack": "r2", "a": "y"},
            "tag a: – → y, tag old: x → –, tag rack: r1 → r2",
        ),
    ],
)
def test_a_change_in_words(field: str, old: Any, new: Any, words: str) -> None:
    assert describe(field, old, new) == words


def test_tags_in_words() -> None:
    assert shown_value("tags", {"row": "7", "rack": "r1"}) == "rack: r1, row: 7"
    assert shown_value("tags", {}) == "–"


@pytest.mark.django_db
def test_rows_that_change_are_written_and_logged_and_no_others() -> None:
    save(fleet(4))
    user = User.objects.create_user("someone")
    GPU.objects.filter(pk="GPU-0001").update(owner="ml")
    before = {gpu.pk: gpu.last_seen for gpu in GPU.objects.all()}
    keys = ["GPU-0002", "GPU-0001", "GPU-0000", "GPU-gone"]
    assert change_assets(GPU, keys, "owner", lambda _: "ml", user.pk) == 2
    assert [gpu.owner for gpu in GPU.objects.order_by("pk")] == ["ml", "ml", "ml", ""]
    assert {gpu.pk: gpu.last_seen for gpu in GPU.objects.all()} == before
    entries = LogEntry.objects.order_by("object_id")
    assert [(entry.object_id, entry.user) for entry in entries] == [("GPU-0000", user), ("GPU-0002", user)]
    assert change_assets(Host, ["host-000"], "tags", lambda tags: {**tags, "rack": "r1"}, user.pk) == 1
    assert Host.objects.get().tags == {"rack": "r1"}


@pytest.mark.django_db
def test_a_change_that_fails_changes_nothing() -> None:
    save(fleet(2))
    user = User.objects.create_user("someone")

    def fail_at_the_second(owner: str) -> str:
        seen.append(owner)
        if len(seen) == 2:
            raise ValueError("no")
        return "ml"

    seen: list[str] = []
    with pytest.raises(ValueError, match="no"):
        change_assets(GPU, ["GPU-0000", "GPU-0001"], "owner", fail_at_the_second, user.pk)
    assert not GPU.objects.exclude(owner="").exists()
    assert not LogEntry.objects.exists()
