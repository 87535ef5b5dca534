"""The shape of answers about usage (see api.schema.answers)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from api.schema.answers import Answer, Time, eg

_DAY = "2025-07-18T00:00:00Z"


class UsageCostsAnswer(Answer):
    """What it costs, in the currency of the prices; null where no price is set. The costs of all rows add up to the total's."""

    held: Annotated[float | None, eg(1680.0, "of the time that GPUs were held")]
    idle_held: Annotated[float | None, eg(420.0, "what of it was held but idle")]
    energy: Annotated[float | None, eg(61.74, "of all energy, times PUE")]


class UsageFiguresAnswer(Answer):
    """What GPUs did. Times are GPU-hours: total = held + free + unknown, and held = active + below the threshold + unmeasured."""

    gpus: Annotated[int, eg(8, "different GPUs")]
    total_hours: Annotated[float, eg(1344.0, "all the time of its GPUs, each from its first sample on")]
    held_hours: Annotated[float, eg(672.0, "a pod had the GPU")]
    active_hours: Annotated[float, eg(480.0, "held, and utilisation at or above idle_percent")]
    idle_held_hours: Annotated[float, eg(168.0, "held, and below idle_percent for 15 minutes or more at a time")]
    unmeasured_hours: Annotated[float, eg(0.0, "held, and the utilisation is not known")]
    free_hours: Annotated[float, eg(660.0, "no pod had the GPU")]
    free_active_hours: Annotated[float, eg(1.5, "no pod had the GPU, and yet it was busy")]
    unknown_hours: Annotated[float, eg(12.0, "no readings: neither held nor free")]
    coverage: Annotated[
        float | None,
        eg(
            0.991,
            "share of the time that is known; of a namespace or pod: of the GPUs it held, in the hours in which it did",
        ),
    ]
    active_hours_second: Annotated[float, eg(470.0, "the same as active_hours, with idle_percent_second")]
    idle_held_hours_second: Annotated[float, eg(175.0, "the same as idle_held_hours, with idle_percent_second")]
    effective_hours: Annotated[float, eg(310.0, "held time x share of SMs that were active")]
    effective_coverage: Annotated[float | None, eg(1.0, "share of the held time for which that is known")]
    effective_upper_bound: Annotated[
        float | None,
        eg(0.0, "share of that time for which GPU utilisation stands in for it: then it is an upper bound"),
    ]
    energy_kwh: Annotated[float, eg(294.0, "by the energy counters, also over gaps, else by mean power and time")]
    energy_estimated_kwh: Annotated[float, eg(0.0, "what of it is by mean power and time")]
    energy_coverage: Annotated[float | None, eg(0.998, "share of the time for which the energy is known")]
    idle_held_kwh: Annotated[float, eg(18.5, "energy of the time that was held but idle")]
    idle_free_kwh: Annotated[float, eg(51.2, "energy of the time below idle_percent that nobody held")]
    power_utilisation: Annotated[float | None, eg(0.43, "mean power through mean enforced limit, where both are known")]
    costs: Annotated[UsageCostsAnswer | UnsetType, Meta(description="only where USAGE_PRICES is set")] = UNSET
    co2_grams: Annotated[
        float | UnsetType, eg(145236.0, "energy x PUE x grams for each kWh; only where USAGE_PRICES has them")
    ] = UNSET


class UsageGroupAnswer(Answer):
    """The group of a row: the names it was grouped by. Empty names: nobody held the GPUs, or nothing is noted."""

    gpu: str | UnsetType = UNSET
    host: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    namespace: Annotated[str | UnsetType, eg("research")] = UNSET
    pod: str | UnsetType = UNSET
    owner: str | UnsetType = UNSET
    tag: str | UnsetType = UNSET


class UsageRowAnswer(UsageFiguresAnswer, kw_only=True):
    """One group, in the whole range or in one day."""

    group: UsageGroupAnswer
    day: Annotated[Time | UnsetType, Meta(description="the day's start (UTC), with per=day")] = UNSET


class UsageReconciliationAnswer(Answer):
    """Whole nanoseconds of the times of all rows, which add up; null where only some holders are asked for."""

    held_ns: Annotated[int, eg(2_419_200_000_000_000)]
    free_ns: Annotated[int, eg(2_376_000_000_000_000)]
    unknown_ns: Annotated[int, eg(43_200_000_000_000)]
    total_ns: Annotated[int, eg(4_838_400_000_000_000, "the GPUs x the range, each from its first sample on")]
    exact: Annotated[bool, eg(True, "held + free + unknown = total")]


class UsageAnswer(Answer):
    """Who held GPUs, and used them."""

    start_time: Annotated[Time, eg("2025-07-11T00:00:00Z", "start of the range that was used: whole hours, or days")]
    end_time: Annotated[Time, eg(_DAY, "its end: a whole hour, or now")]
    newest: Annotated[Time | None, eg("2025-07-17T23:59:50Z", "the newest sample that is counted")]
    by: Annotated[str, eg("namespace")]
    per: Annotated[Literal["range", "day"], Meta(description="what each row is of")]
    idle_percent: Annotated[float, eg(5.0, "utilisation below which a held GPU is idle (USAGE_IDLE_PERCENT)")]
    idle_percent_second: Annotated[float, eg(10.0, "a second threshold, twice the first")]
    data: Annotated[
        list[UsageRowAnswer], Meta(description="groups with the most time that was held but idle first; days in order")
    ]
    count: Annotated[int, eg(1, "rows in this answer")]
    total: Annotated[UsageFiguresAnswer, Meta(description="of all groups, also of those that top leaves out")]
    reconciles: UsageReconciliationAnswer | None
    currency: Annotated[str | UnsetType, eg("EUR", "of costs; only where USAGE_PRICES is set")] = UNSET
    models_without_price: Annotated[
        list[str] | UnsetType, eg([], "models that were held and are in no cost; only where USAGE_PRICES is set")
    ] = UNSET
