"""What the tests of pages share: a real store beside the inventory."""

from __future__ import annotations

from tests.api.conftest import store

__all__ = ["store"]
