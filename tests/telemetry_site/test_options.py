from __future__ import annotations

from io import StringIO
from pathlib import Path

from django.conf import settings
from django.core.management import call_command

from telemetry_site.options import BY_NAME, COMMAND_GROUPS, OPTIONS, options_for

DOCS = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def test_every_default_is_a_value_its_own_parser_takes() -> None:
    for option in OPTIONS:
        option.read({})


def test_names_are_unique_and_have_a_help_line() -> None:
    assert len(BY_NAME) == len(OPTIONS)
    assert all(option.help and not option.help.endswith(".") for option in OPTIONS)


def test_every_option_is_read_into_the_settings() -> None:
    assert [
        option.name for option in OPTIONS if option.name != "DATABASE_URL" and not hasattr(settings, option.name)
    ] == []


def test_every_option_is_a_flag_of_some_command() -> None:
    taken = {option.name for command in COMMAND_GROUPS for option in options_for(command)}
    assert taken == set(BY_NAME)


def test_a_command_that_is_no_service_takes_no_setting_as_a_flag() -> None:
    assert options_for("migrate") == []


def test_the_configuration_page_has_the_table_as_it_is() -> None:
    out = StringIO()
    call_command("showsettings", "--markdown", stdout=out)
    assert out.getvalue() in DOCS.read_text(), (
        "run: manage.py showsettings --markdown, and put it into docs/configuration.md"
    )
