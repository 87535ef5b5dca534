"""One process at a time has a lease."""

from __future__ import annotations

import pytest

from inventory.leases import Lease, make_holder
from inventory.models import RollupState

pytestmark = pytest.mark.django_db

LONG_AGO = "2020-01-01T00:00:00Z"


def test_a_lease_has_one_holder_and_runs_out() -> None:
    lease = Lease(RollupState, "store", "one")
    assert lease.take("a")
    assert lease.holder() == "a"
    assert not lease.take("b")
    assert lease.take("a")
    assert lease.renew("a")
    assert not lease.renew("b")
    RollupState.objects.update(lease_until=LONG_AGO)
    assert lease.holder() == ""
    assert lease.renew("a")  # nobody took it
    RollupState.objects.update(lease_until=LONG_AGO)
    assert lease.take("b")
    assert not lease.renew("a")


def test_one_that_is_given_back_is_free_at_once() -> None:
    lease, other = Lease(RollupState, "store", "one"), Lease(RollupState, "store", "two")
    assert lease.take("a")
    assert other.take("b")
    lease.give_back("b")  # not its own
    assert lease.holder() == "a"
    lease.give_back("a")
    assert lease.holder() == ""
    assert lease.take("b")
    assert other.holder() == "b"


def test_no_two_processes_have_the_same_name() -> None:
    assert len({make_holder() for _ in range(100)}) == 100
