from __future__ import annotations

from inventory import board
from readings.catalogue import CATALOGUE


def test_every_metric_that_the_inventory_shows_is_one_that_the_catalogue_knows() -> None:
    names = {value for name, value in vars(board).items() if name.isupper() and isinstance(value, str)}
    assert names
    assert names <= set(CATALOGUE)
