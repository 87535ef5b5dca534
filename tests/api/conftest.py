"""A small fleet in a real SQLite store and the real inventory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from api.auth.tokens import forget
from inventory.sync.memory import save_sightings
from inventory.sync.sightings import Sightings
from readings.model import Gpu, PointBlock
from readings.times import SECOND
from stores.base import Store
from stores.open import get_store, reset_store

UTIL, POWER, FB_USED = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_FB_USED"
# 2025-07-18T20:42:34Z
T0 = 1_752_871_354 * SECOND
MINUTE = 60 * SECOND

H100 = "NVIDIA H100 80GB HBM3"
A100 = "NVIDIA A100-SXM4-40GB"
DRIVER = {"DCGM_FI_DRIVER_VERSION": "535.129.03"}

# Two hosts. GPU-a0 runs a pod, GPU-a1 is stale, GPU-b0 has a MIG instance.
A0 = Gpu(
    uuid="GPU-a0",
    hostname="host-a",
    gpu_id=0,
    device="nvidia0",
    model_name=H100,
    namespace="research",
    pod="train-1",
    container="main",
    labels=DRIVER,
)
A1 = Gpu(uuid="GPU-a1", hostname="host-a", gpu_id=1, device="nvidia1", model_name=H100, labels=DRIVER)
B0 = Gpu(uuid="GPU-b0", hostname="host-b", gpu_id=0, device="nvidia0", model_name=A100)
B0_MIG = Gpu(
    uuid="GPU-b0",
    hostname="host-b",
    gpu_id=0,
    device="nvidia0",
    model_name=A100,
    mig_id="3",
    mig_profile="1g.5gb",
    namespace="web",
    pod="serve-1",
)


def save(store: Store, block: PointBlock) -> None:
    """What the collector does with a block."""
    store.write([block])
    sightings = Sightings()
    sightings.add(block)
    save_sightings(sightings)


def block_of(gpus: Sequence[Gpu], points: Sequence[tuple[int, int, list[float | None]]]) -> PointBlock:
    """A block of utilisation, power and memory used."""
    return PointBlock(gpus=list(gpus), metric_names=[UTIL, POWER, FB_USED], points=list(points))


@pytest.fixture(autouse=True)
def _no_token_is_remembered() -> None:
    forget()


@pytest.fixture
def store(settings: Settings, tmp_path: Path) -> Iterator[Store]:
    """An empty SQLite store, the one that the views use."""
    settings.STORAGE_TYPE = "sqlite"
    settings.SQLITE_PATH = tmp_path / "readings.sqlite3"
    reset_store()
    yield get_store()
    reset_store()


@pytest.fixture
def fleet(db: None, store: Store) -> Store:
    """Four GPUs, 17 readings: GPU-a1 was last seen ten minutes before the others."""
    save(
        store,
        block_of(
            [A0, A1, B0, B0_MIG],
            [
                (0, T0 - 10 * MINUTE, [10.0, 100.0, 1000.0]),
                (1, T0 - 10 * MINUTE, [20.0, 200.0, 2000.0]),
                (2, T0 - MINUTE, [30.0, 300.0, 3000.0]),
                (2, T0, [40.0, 310.5, 3000.0]),
                (3, T0, [None, None, 500.0]),
                (0, T0 + 500_000_001, [50.0, 400.25, 4000.0]),
                (0, T0 + SECOND, [None, 410.0, None]),
            ],
        ),
    )
    return store


class Api:
    """Asks the API and looks at the answer."""

    def __init__(self) -> None:
        self._client = Client(raise_request_exception=False)

    def ask(self, path: str, **headers: str) -> Any:
        """The raw response."""
        return self._client.get(path, headers=headers)

    def head(self, path: str) -> Any:
        """The raw response to a HEAD."""
        return self._client.head(path)

    def get(self, path: str) -> Any:
        """The body of an answer that must be a 200."""
        response = self._client.get(path)
        assert response.status_code == 200, response.content
        assert response["Content-Type"] == "application/json"
        return response.json()

    def refused(self, path: str, status: int) -> str:
        """The message of an answer that must be this error."""
        response = self._client.get(path)
        assert response.status_code == status, response.content
        assert response["Content-Type"] == "application/json"
        body = response.json()
        assert set(body) == {"error", "message"}
        assert "\n" not in body["message"]
        return str(body["message"])


@pytest.fixture
def api() -> Api:
    """The API through Django's test client."""
    return Api()
