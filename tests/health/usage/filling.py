"""Usage in the database, as ``manage.py watch`` leaves it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from django.db import transaction

from health.engine.intake import Intake
from health.models import WatchState
from health.usage.meter import UsageMeter
from health.usage.saving import load_meter, save_usage
from inventory.models import GPU, Host
from readings.model import Gpu, PointBlock
from readings.times import to_datetime

Point = tuple[Gpu, int, dict[str, float]]


class Watched:
    """Takes points as ``watch`` does: ``commit`` keeps hours and state in one transaction, ``restart`` forgets all else."""

    def __init__(self) -> None:
        self.intake = Intake(UsageMeter.WANTED)
        self.meter = load_meter(b"")

    def send(self, points: Iterable[Point]) -> None:
        """One block of these points."""
        points = list(points)
        gpus = [gpu for gpu, _, _ in points]
        names = [name for name in UsageMeter.WANTED if any(name in values for _, _, values in points)]
        rows = [(at, time, [values.get(name) for name in names]) for at, (_, time, values) in enumerate(points)]
        self.take(PointBlock(gpus, names, rows))

    def take(self, block: PointBlock) -> None:
        """One block."""
        arrivals = self.intake.take(block, source="test", live=False, received_ns=0)
        if arrivals is not None:
            self.intake.keep(arrivals)
            self.meter.take(arrivals, self.intake.registry)

    def commit(self, now_ns: int | None = None) -> None:
        """Keep everything."""
        now = datetime.now(UTC) if now_ns is None else to_datetime(now_ns)
        with transaction.atomic():
            save_usage(self.meter, now)
            WatchState.objects.update_or_create(pk=1, defaults={"usage": self.meter.dump(), "updated": now})

    def restart(self) -> None:
        """Begin again with what was kept."""
        self.meter = load_meter(bytes(WatchState.objects.get(pk=1).usage))


def add_to_inventory(gpus: Iterable[Gpu], seen_ns: int) -> None:
    """The rows that a collector would make of these GPUs."""
    seen = to_datetime(seen_ns)
    for gpu in gpus:
        host, _ = Host.objects.get_or_create(name=gpu.hostname, defaults={"first_seen": seen, "last_seen": seen})
        GPU.objects.get_or_create(
            id=gpu.id,
            defaults={
                "uuid": gpu.uuid, "host": host, "index": gpu.gpu_id, "model_name": gpu.model_name, "first_seen": seen,
                "last_seen": seen,
            },
        )  # fmt: skip
