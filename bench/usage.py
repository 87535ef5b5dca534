"""What the usage report costs: 30 days of GPU-hours in the database, asked in every way.

    python -m bench.usage                      # 1,000 and 10,000 GPUs, and thousands of pods
    python -m bench.usage --gpus 1000 --meter  # also the meter: 1 M readings

Each question is asked anew: nothing is kept between two. Times are CPU and wall seconds of one process.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from health.usage.packing import Period
    from health.usage.report import UsageReport

T = TypeVar("T")

HOURS_KEPT = 8 * 24
DAYS = 30
GPUS_PER_HOST = 8
# A pod has four GPUs for some 8 hours.
GPUS_PER_POD, HOURS_PER_POD = 4, 8


def main() -> None:
    """Measure each fleet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1_000, 10_000], help="GPUs [%(default)s]")
    parser.add_argument("--meter", action="store_true", help="measure the meter too")
    options = parser.parse_args()
    for gpus in options.gpus:
        with tempfile.TemporaryDirectory(prefix="bench-usage-") as folder:
            if (child := os.fork()) == 0:
                measure(gpus, folder)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            if status:
                raise SystemExit(f"the run with {gpus} GPUs failed")
    if options.meter:
        measure_meter()


def measure(gpus: int, folder: str) -> None:
    """Fill a database with 30 days and ask."""
    os.environ |= {"STATE_DIR": folder, "DJANGO_SETTINGS_MODULE": "telemetry_site.settings", "VERBOSITY": "0"}
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    from health.models import UsagePeriod
    from health.usage.report import UsageBy, UsageQuestion, usage_report
    from readings.times import to_ns

    call_command("migrate", verbosity=0)
    now = datetime.now(UTC).replace(minute=30, second=0, microsecond=0)
    print(f"\n{gpus:,} GPUs, {DAYS} days", flush=True)
    _timed("filling", lambda: fill(gpus, now))
    rows = UsagePeriod.objects.count()
    size = sum(len(data) for data in UsagePeriod.objects.values_list("data", flat=True))
    print(f"  {rows} periods, {size / 1e6:.1f} MB")
    start, end = to_ns(now - timedelta(days=DAYS)), to_ns(now)
    groups: tuple[UsageBy, ...] = ("host", "gpu", "namespace", "pod")
    for by in groups:
        for per_day in (False, True):
            question = UsageQuestion(start, end, by=by, per_day=per_day)

            def ask(question: UsageQuestion = question) -> UsageReport:
                return usage_report(question, most_rows=1_000_000)

            report = _timed(f"by {by}{' per day' if per_day else ''}", ask)
            print(f"  {len(report.rows):,} rows, exact: {report.is_exact}")
    connection.close()


def fill(gpus: int, now: datetime) -> None:
    """Hours of the last eight days and days before, as the meter and the folding leave them."""
    from health.models import UsagePeriod
    from health.usage.packing import HOUR_NS, merge, pack
    from readings.times import to_datetime, to_ns

    hour = to_ns(now) // HOUR_NS
    kept = (hour - HOURS_KEPT) // 24 * 24
    rows = []
    for number in range(hour - DAYS * 24, kept, 24):
        periods = [hour_of(gpus, each) for each in range(number // 24 * 24, number // 24 * 24 + 24)]
        day = merge(periods, number // 24 * 24 * HOUR_NS, 24)
        rows.append(UsagePeriod(start=to_datetime(day.start_ns), hours=24, data=pack(day)))
    for number in range(kept, hour):
        period = hour_of(gpus, number)
        rows.append(UsagePeriod(start=to_datetime(period.start_ns), hours=1, data=pack(period)))
    UsagePeriod.objects.bulk_create(rows, batch_size=50)


def hour_of(gpus: int, hour: int) -> Period:
    """An hour of a fleet of which four fifths are held."""
    from health.usage.packing import FIGURES, FREE, HOUR_NS, BoardPlace, Figure, Holder, Period

    rng = np.random.default_rng(hour)
    number = np.arange(gpus)
    job = number // GPUS_PER_POD
    names = [
        Holder(f"team-{each % 12}", f"job-{each}-{(hour + each % HOURS_PER_POD) // HOURS_PER_POD}")
        for each in range(int(job.max()) + 1)
    ]
    figures = np.zeros((FIGURES, gpus), np.int64)
    known = HOUR_NS - (rng.random(gpus) < 0.02) * rng.integers(0, HOUR_NS, gpus)
    share = rng.random(gpus)
    figures[Figure.KNOWN] = figures[Figure.MEASURED] = figures[Figure.EFFECTIVE_KNOWN] = known
    figures[Figure.ACTIVE] = figures[Figure.ACTIVE_SECOND] = known * share
    figures[Figure.IDLE] = figures[Figure.IDLE_SECOND] = (known - figures[Figure.ACTIVE]) * (job % 10 < 8)
    figures[Figure.EFFECTIVE] = known * share * 0.7
    figures[Figure.COUNTED_MJ] = known / 1e6 * rng.uniform(80, 600, gpus)
    figures[Figure.ENERGY_KNOWN] = known
    figures[Figure.DRAWN_MJ], figures[Figure.LIMIT_MJ] = figures[Figure.COUNTED_MJ], known / 1e6 * 700
    return Period(
        hour * HOUR_NS,
        1,
        tuple(
            BoardPlace(
                f"GPU-{each:08x}-1111-2222-3333-444444444444",
                f"node-{each // GPUS_PER_HOST:04}",
                "NVIDIA H100 80GB HBM3",
            )
            for each in range(gpus)
        ),
        np.full(gpus, HOUR_NS),
        np.full(gpus, (hour + 1) * HOUR_NS),
        tuple(names),
        number.astype(np.int32),
        np.where(job % 10 < 8, job, FREE).astype(np.int32),
        figures,
    )


def measure_meter() -> None:
    """1 M readings of 1,000 GPUs with 25 metrics, a scrape of eight GPUs a block."""
    from health.engine.intake import Intake
    from health.usage.meter import UsageMeter
    from readings.model import Gpu, PointBlock
    from readings.times import SECOND

    gpus = [
        Gpu(
            uuid=f"GPU-{n}",
            hostname=f"node-{n // 8}",
            gpu_id=n % 8,
            model_name="H100",
            pod=f"p{n // 4}",
            namespace="ml",
        )
        for n in range(1000)
    ]
    names = [*UsageMeter.WANTED, *(f"OTHER_{number}" for number in range(19))]
    rng = np.random.default_rng(1)
    intake, meter = Intake(UsageMeter.WANTED), UsageMeter()
    spent, readings = 0.0, 0
    for sample in range(41):
        time_ns = 1_700_000_000 * SECOND + sample * 10 * SECOND
        for first in range(0, len(gpus), 8):
            values: list[float | None] = [
                float(rng.integers(100)),
                0.5,
                0.4,
                400.0,
                1e9 + sample * 4e6,
                700.0,
                *[1.0] * 19,
            ]
            block = PointBlock(gpus[first : first + 8], names, [(at, time_ns, values) for at in range(8)])
            arrivals = intake.take(block, source="bench", live=False, received_ns=time_ns)
            assert arrivals is not None
            intake.keep(arrivals)
            readings += block.count()
            begin = time.process_time()
            meter.take(arrivals, intake.registry)
            spent += time.process_time() - begin
    begin = time.process_time()
    state = meter.dump()
    spent += time.process_time() - begin
    print(
        f"\nmeter: {1e6 * spent / readings:.3f} s of CPU for 1 M readings; state of 1,000 GPUs {len(state) / 1e6:.2f} MB"
    )


def _timed(what: str, call: Callable[[], T]) -> T:
    wall, cpu = time.perf_counter(), time.process_time()
    found = call()
    print(
        f"  {what:24} {time.perf_counter() - wall:7.3f} s  ({time.process_time() - cpu:.3f} s CPU)", end="", flush=True
    )
    return found


if __name__ == "__main__":
    main()
