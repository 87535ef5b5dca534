"""The broker's address, from the settings."""

from __future__ import annotations

from django.conf import settings
from django.core.management.base import CommandError

from broker.client.address import BrokerAddress
from broker.client.client import client_context
from broker.errors import TlsUnusable


def broker_address() -> BrokerAddress:
    """The broker's address. Raises CommandError for TLS files that cannot be used."""
    try:
        tls = client_context(settings.BROKER_TLS_CA, settings.BROKER_TLS_CERT, settings.BROKER_TLS_KEY)
    except TlsUnusable as error:
        raise CommandError(str(error)) from error
    return BrokerAddress(host=settings.MQ_HOST, port=settings.MQ_PORT, token=settings.BROKER_TOKEN, tls=tls)
