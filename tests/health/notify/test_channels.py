"""NOTIFY_URLS: names, filters, and what is wrong with one, said without its secrets."""

from __future__ import annotations

import pytest

from health.models import Event
from health.notify.channels import grouping_of, needs_tags, parse_channels
from health.notify.errors import ChannelError

SECRET = "xoxb-1234-secret"


def event(**fields: object) -> Event:
    return Event(
        **{"rule": "xid_fatal", "severity": "critical", "hostname": "node-1", "model_name": "NVIDIA H100"} | fields
    )


def test_a_channel_has_a_name_that_stays_and_shows_nothing_of_its_url() -> None:
    (first,) = parse_channels((f"slack://{SECRET}/x",))
    (again,) = parse_channels((f"SLACK://{SECRET}/x",))
    assert first.name == again.name
    assert first.name.startswith("slack-")
    assert "secret" not in f"{first!r}"
    (named,) = parse_channels((f"[name=oncall]slack://{SECRET}/x",))
    assert (named.name, named.url) == ("oncall", f"slack://{SECRET}/x")


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ("", True),
        ("severity>=warning", True),
        ("severity=warning", False),
        ("severity=warning|critical", True),
        ("rule=xid_*", True),
        ("rule=temp_*", False),
        ("host=NODE-*,rule=xid_fatal", True),
        ("host=node-1,rule=temp_high", False),
        ("model=*h100*", True),
        ("tag.team=ml|hpc", True),
        ("tag.team=web", False),
        ("tag.rack=*", True),
        ("namespace=ml", False),
    ],
)
def test_filters(filters: str, wanted: bool) -> None:
    (channel,) = parse_channels((f"[{filters}]json://localhost",))
    assert channel.wants(event(), "critical", {"team": "ml"}) is wanted
    assert channel.asks_for_tags is ("tag" in filters)


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        ((f"{SECRET}",), "URL 1 is none"),
        (
            ("json://a", f"[severity>critical]slack://{SECRET}"),
            "URL 2: 'severity>critical' is no filter: use severity>=warning",
        ),
        ((f"[severity>=bad]slack://{SECRET}",), "severities are info, warning, critical"),
        ((f"[rule>=x]slack://{SECRET}",), ">= is for severity alone"),
        ((f"[rack=r1]slack://{SECRET}",), "'rack' cannot be filtered by: use severity>=warning, rule="),
        ((f"[name=a b]slack://{SECRET}",), "name= takes"),
        ((f"slack://{SECRET}", "json://b", f"slack://{SECRET}"), "URL 3 is the same as URL 1"),
        ((f"[name=x]slack://{SECRET}", "[name=x]json://b"), "URL 2 is the same as URL 1, or has the same name"),
        (tuple(f"json://host-{number}" for number in range(51)), "51 URLs: at most 50"),
    ],
)
def test_what_is_wrong_is_said_without_a_secret(urls: tuple[str, ...], said: str) -> None:
    with pytest.raises(ChannelError) as caught:
        parse_channels(urls)
    text = str(caught.value)
    assert said in text
    assert text.startswith("NOTIFY_URLS: ")
    assert "\n" not in text
    assert SECRET not in text


def test_groups_are_of_fields_and_else_of_tags() -> None:
    assert grouping_of(event(), ("host", "rule"), {}) == ("node-1", "xid_fatal")
    assert grouping_of(event(), ("rack", "severity"), {"rack": "r1"}) == ("r1", "critical")
    assert needs_tags(("host", "rack"))
    assert not needs_tags(("host", "rule", "severity", "model", "namespace"))
