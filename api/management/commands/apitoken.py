"""``manage.py apitoken``: create, list and revoke API tokens."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from api.auth.tokens import make_token, revoke
from api.models import ApiToken, TokenScope
from api.params import format_datetime
from api.views.access import token_answer
from inventory.migrating import migrate_embedded

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1)}
_FOR = re.compile(r"(\d{1,5})(h|d)", re.ASCII)


class Command(BaseCommand):
    """Prints only the token itself to standard output, so that scripts can capture it."""

    help = "Create, list or revoke API tokens."

    def add_arguments(self, parser: CommandParser) -> None:
        """The subcommands."""
        commands = parser.add_subparsers(dest="command", required=True, metavar="create|list|revoke")
        create = commands.add_parser("create", help="create a token and print it; it is not shown again")
        create.add_argument("name", help="whose it is, or what it is for")
        create.add_argument("--scope", choices=TokenScope.values, default=TokenScope.READ.value)
        create.add_argument(
            "--expires", default="never", metavar="WHEN", help="24h, 90d, a day as 2027-01-31, or never (default)"
        )
        listing = commands.add_parser("list", help="list all tokens, without their secrets")
        listing.add_argument("--json", action="store_true", help="as JSON")
        commands.add_parser("revoke", help="revoke a token").add_argument(
            "name", help="its name, or its id as list shows it"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run a subcommand."""
        migrate_embedded()  # a token may be made before any service has run
        match options["command"]:
            case "create":
                self._create(options["name"], options["scope"], options["expires"])
            case "list":
                self._list(as_json=options["json"])
            case "revoke":
                self._revoke(options["name"])

    def _create(self, name: str, scope: str, expires: str) -> None:
        try:
            token, secret = make_token(name, scope, _moment(expires))
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from None
        until = "never expires" if token.expires is None else f"expires {format_datetime(token.expires)}"
        self.stderr.write(f"token {token.name} (id {token.pk}, scope {token.scope}, {until}); it is shown only once:")
        self.stdout.write(secret)

    def _list(self, *, as_json: bool) -> None:
        answers = [msgspec.structs.asdict(token_answer(token)) for token in ApiToken.objects.all()]
        # The state says whether a token is revoked.
        rows = [{name: value for name, value in answer.items() if name != "revoked"} for answer in answers]
        if as_json:
            self.stdout.write(json.dumps(rows, indent=2))
            return
        if not rows:
            self.stderr.write("there are no tokens: create one with manage.py apitoken create NAME")
            return
        table = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        for row in table:
            self.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def _revoke(self, name: str) -> None:
        tokens = ApiToken.objects.filter(name=name, revoked=None)
        if not tokens and name.isascii() and name.isdigit() and len(name) < 19:
            tokens = ApiToken.objects.filter(pk=int(name), revoked=None)
        token = tokens.first()
        if token is None:
            raise CommandError(f"there is no token {name!r} to revoke: manage.py apitoken list shows them")
        revoke(tokens)
        self.stderr.write(
            f"token {token.name} (id {token.pk}) is revoked; running web services refuse it within 5 seconds"
        )


def _moment(text: str) -> datetime | None:
    """When a token created now expires. Raises CommandError."""
    if text == "never":
        return None
    if match := _FOR.fullmatch(text):
        moment = timezone.now() + int(match[1]) * _UNITS[match[2]]
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise CommandError(
                f"--expires {text!r} is not a time: use 24h, 90d, a day as 2027-01-31, or never"
            ) from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment <= timezone.now():
        raise CommandError(f"--expires {text!r} is past: use a later time")
    return moment


def _cell(value: object) -> str:
    return "-" if value is None else str(value)
