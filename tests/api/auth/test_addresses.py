"""Whose address counts: never one that the client only says."""

from __future__ import annotations

import pytest
from django.test import RequestFactory
from pytest_django import Settings

from api.auth.throttling import client_address, network_of


def address(peer: str = "10.0.0.9", forwarded: str = "") -> str:
    headers = {"x-forwarded-for": forwarded} if forwarded else {}
    return client_address(RequestFactory().get("/", headers=headers, REMOTE_ADDR=peer))


@pytest.mark.parametrize("forwarded", ["", "1.2.3.4", "1.2.3.4, 5.6.7.8", "::1"])
def test_without_proxies_what_is_said_does_not_count(forwarded: str) -> None:
    assert address(forwarded=forwarded) == "10.0.0.9"


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        (1, "203.0.113.7", "203.0.113.7"),
        (1, "1.1.1.1, 203.0.113.7", "203.0.113.7"),
        (2, "1.1.1.1, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
        (2, "203.0.113.7", "10.0.0.9"),  # fewer entries than proxies: it did not come through them
        (1, "", "10.0.0.9"),
        (1, "2001:db8::1", "2001:db8::1"),
        (1, "1.1.1.1, garbage", "unknown"),
        (1, " , ,203.0.113.7 ,", "203.0.113.7"),
    ],
)
def test_with_proxies_the_entry_that_the_outermost_of_them_wrote_counts(
    settings: Settings, proxies: int, forwarded: str, expected: str
) -> None:
    settings.TRUSTED_PROXIES = proxies
    assert address(forwarded=forwarded) == expected


def test_a_peer_without_an_address_is_unknown() -> None:
    assert address(peer="") == "unknown"


@pytest.mark.parametrize(
    ("one", "whole"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("unknown", "unknown"),
    ],
)
def test_of_ipv6_a_whole_network_counts_as_one(one: str, whole: str) -> None:
    assert network_of(one) == whole
