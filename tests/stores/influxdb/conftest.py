"""A stand-in before the real InfluxDB."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.influxd import Influxd
from tests.stand_in import StandIn, standing_in


@pytest.fixture
def door(influxd: Influxd) -> Iterator[StandIn]:
    with standing_in(influxd.port) as door:
        yield door
