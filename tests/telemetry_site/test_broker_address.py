"""The broker's address comes from the settings of clients."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management.base import CommandError
from pytest_django import Settings

from telemetry_site.broker_address import broker_address


def test_it_has_host_port_and_token(settings: Settings) -> None:
    settings.MQ_HOST, settings.MQ_PORT, settings.BROKER_TOKEN = "::1", 9123, "secret"
    address = broker_address()
    assert str(address) == "[::1]:9123"
    assert address.partner == "the broker at [::1]:9123"
    assert address.token == "secret"
    assert "secret" not in repr(address)


def test_a_ca_that_cannot_be_read_is_one_line(settings: Settings, tmp_path: Path) -> None:
    settings.BROKER_TLS_CA = tmp_path / "none.pem"
    with pytest.raises(CommandError, match=r"none\.pem"):
        broker_address()
