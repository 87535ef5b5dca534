"""manage.py check --deploy tells where reading is open."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from api.checks import check_access


@pytest.mark.parametrize(
    ("required", "who"), [(True, ""), (None, "On the loopback"), (False, "Everyone who can reach")]
)
def test_all_but_true_is_told(settings: Settings, required: bool | None, who: str) -> None:
    settings.API_AUTH_REQUIRED = required
    told = check_access()
    assert len(told) == bool(who)
    assert all(each.msg.startswith(who) and "API_AUTH_REQUIRED=true" in str(each.hint) for each in told)
