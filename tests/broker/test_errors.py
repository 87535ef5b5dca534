from __future__ import annotations

import pytest

from broker import errors
from broker.errors import BY_CODE, BrokerError, DiskFull, for_code

RETRIABLE = {
    "subscriber_in_use",
    "disk_full",
    "read_only",
    "overloaded",
    "shutting_down",
    "unavailable",
    "connection_lost",
}


def test_every_error_is_in_the_table_under_its_own_code() -> None:
    classes = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, BrokerError) and value is not BrokerError
    }
    assert set(BY_CODE.values()) == classes
    assert len(BY_CODE) == len(classes)


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_a_code_gives_its_error_with_the_message(code: str) -> None:
    error = for_code(code, "what happened")
    assert type(error) is BY_CODE[code]
    assert str(error) == "what happened"
    assert error.retriable is (code in RETRIABLE)


def test_an_unknown_code_gives_the_plain_error() -> None:
    error = for_code("of_a_newer_broker", "text")
    assert type(error) is BrokerError
    assert not error.retriable
    assert not isinstance(error, DiskFull)


def test_every_code_is_one_errors_own_and_explained() -> None:
    assert len(BY_CODE) == len(BrokerError.__subclasses__()) == 19
    assert all(error.__doc__ for error in BY_CODE.values())
