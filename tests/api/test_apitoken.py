"""``manage.py apitoken``."""

from __future__ import annotations

import io
import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from api.auth.tokens import TokenRefused, find_token
from api.models import ApiToken
from tests.api.serving import START_SECONDS, environment, manage, migrated

pytestmark = pytest.mark.django_db(transaction=True)  # commands close the connection


def run(*arguments: str) -> tuple[str, str]:
    """What it writes to standard output and to standard error."""
    out, err = io.StringIO(), io.StringIO()
    call_command("apitoken", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_a_token_is_made_and_nothing_but_it_is_printed() -> None:
    out, err = run("create", "grafana")
    assert find_token(out.rstrip("\n")).name == "grafana"
    assert "scope read, never expires" in err
    assert out.strip() not in err


def test_scope_and_end() -> None:
    secret = run("create", "a", "--scope", "admin", "--expires", "90d")[0].strip()
    found = find_token(secret)
    assert found.scope == "admin"
    assert found.expires is not None
    assert timedelta(days=89, hours=23) < found.expires - timezone.now() <= timedelta(days=90)
    run("create", "b", "--expires", "24h")
    run("create", "c", "--expires", "2100-01-31")
    assert ApiToken.objects.get(name="c").expires == datetime(2100, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--expires", "soon"], "use 24h, 90d"),
        (["a", "--expires", "2020-01-01"], "is past"),
        (["a", "--expires", "0d"], "is past"),
        (["a", "--expires", "999999d"], "use 24h, 90d"),
        (["a", "--scope", "root"], "choose from"),
        ([""], "blank"),
        (["x" * 129], "128"),
        (["taken"], "revoke it, or choose another"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: list[str], message: str) -> None:
    run("create", "taken")
    with pytest.raises(CommandError, match=message) as caught:
        run("create", *arguments)
    assert "\n" not in str(caught.value)
    assert ApiToken.objects.count() == 1


def test_the_list_shows_all_but_the_tokens() -> None:
    assert "apitoken create NAME" in run("list")[1]
    secret = run("create", "grafana", "--expires", "1d")[0].strip()
    run("create", "old")
    run("revoke", "old")
    out, _ = run("list")
    assert [line.split()[1:4] for line in out.splitlines()] == [
        ["name", "scope", "state"],
        ["grafana", "read", "active"],
        ["old", "read", "revoked"],
    ]
    rows = json.loads(run("list", "--json")[0])
    assert [row["name"] for row in rows] == ["grafana", "old"]
    for text in (out, str(rows)):
        assert secret not in text
        assert secret[:11] in text


def test_revoking_by_name_and_by_id() -> None:
    first, second = run("create", "1234")[0].strip(), run("create", "b")[0].strip()
    run("revoke", "1234")
    run("revoke", str(find_token(second).id))
    for secret in (first, second):
        with pytest.raises(TokenRefused):
            find_token(secret)
    for name in ("b", "1234", "9" * 30, "nobody"):
        with pytest.raises(CommandError, match="no token"):
            run("revoke", name)


def test_as_a_command_it_prints_one_line_to_standard_output(tmp_path: Path) -> None:
    environ = environment(migrated(tmp_path))
    made = subprocess.run(
        manage("apitoken", "create", "grafana"), env=environ, capture_output=True, text=True, timeout=START_SECONDS
    )
    assert made.returncode == 0
    assert len(made.stdout.splitlines()) == 1
    failed = subprocess.run(
        manage("apitoken", "create", "grafana"), env=environ, capture_output=True, text=True, timeout=START_SECONDS
    )
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert len(failed.stderr.splitlines()) == 1
