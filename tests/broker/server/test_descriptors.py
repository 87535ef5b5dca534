from __future__ import annotations

import pytest

from broker.errors import ListenError
from broker.server.descriptors import RESERVED, Descriptors, raise_limit, share_out


@pytest.mark.parametrize(
    ("limit", "asked", "clients", "http"),
    [(120, 2000, 42, 14), (1024, 2000, 832, 128), (65536, 2000, 2000, 128), (65536, 10, 10, 128)],
)
def test_clients_fit_under_the_limit_of_open_files(limit: int, asked: int, clients: int, http: int) -> None:
    assert share_out(limit, asked) == Descriptors(limit, clients, http)
    assert clients + http + RESERVED <= limit


def test_too_few_are_an_error_that_says_how_many() -> None:
    with pytest.raises(ListenError, match=r"at most 70 files may be open.*allow 80 or more \(ulimit -n\)"):
        share_out(70, 2000)


def test_the_limit_is_the_hard_one() -> None:
    assert raise_limit() == raise_limit() > 0
