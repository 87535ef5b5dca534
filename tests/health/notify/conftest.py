"""Fixtures of the notifications' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.health.notify.receivers import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A web server that takes messages."""
    with receiving() as found:
        yield found
