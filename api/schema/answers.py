"""The shape of every answer: its fields, what they mean, and an example of each.

Views build these, and the OpenAPI description and its examples are derived from them (see api.schema.schema).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

SITE = "http://127.0.0.1:8080"
BASE = f"{SITE}/api/v1"
GPU_ID = "GPU-5fd4f087-86f3-7a43-b711-4771313afc50"
HOST_NAME = "mtv5-dgx1-hgpu-031"
METRIC = "DCGM_FI_DEV_GPU_UTIL"
_TIME = "2025-07-18T20:42:36Z"

Time = Annotated[
    str,
    Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$", extra_json_schema={"format": "date-time"}),
]
Url = Annotated[str, Meta(pattern=r"^https?://", extra_json_schema={"format": "uri"})]
NextUrl = Annotated[Url | None, Meta(description="the next page")]
PreviousUrl = Annotated[Url | None, Meta(description="the page before")]


def eg(example: object, description: str | None = None) -> Meta:
    """An example of a field's value and, where the name does not say it, what the field means."""
    return Meta(examples=[example], description=description)


class Answer(msgspec.Struct, forbid_unknown_fields=True):
    """A JSON object that the API answers with. The docstring of each class is its description in the schema."""


class RequestBody(Answer):
    """A JSON object that a request holds. It has no fields but those of its table."""


class EventCountsAnswer(Answer):
    """How many events of the fleet's health there are, by severity."""

    critical: Annotated[int, eg(1)]
    warning: Annotated[int, eg(0)]
    info: Annotated[int, eg(2)]


class ErrorAnswer(Answer):
    """An error."""

    error: Annotated[str, eg("unavailable", "a code for programs, as bad_request")]
    message: Annotated[str, eg("the store does not answer", "one line for people")]


class IndexAnswer(Answer):
    """The URLs of the API."""

    fleet: Annotated[Url, eg(f"{BASE}/fleet")]
    gpus: Annotated[Url, eg(f"{BASE}/gpus")]
    hosts: Annotated[Url, eg(f"{BASE}/hosts")]
    telemetry: Annotated[Url, eg(f"{BASE}/telemetry")]
    query: Annotated[Url, eg(f"{BASE}/query?metric={METRIC}&by=host", "an example: mean GPU utilisation by host")]
    placements: Annotated[Url, eg(f"{BASE}/placements")]
    events: Annotated[Url, eg(f"{BASE}/events")]
    event_summary: Annotated[Url, eg(f"{BASE}/events/summary")]
    rules: Annotated[Url, eg(f"{BASE}/rules")]
    mutes: Annotated[Url, eg(f"{BASE}/mutes")]
    usage: Annotated[Url, eg(f"{BASE}/usage")]
    metrics: Annotated[Url, eg(f"{BASE}/metrics")]
    stats: Annotated[Url, eg(f"{BASE}/stats")]
    schema: Annotated[Url, eg(f"{SITE}/api/schema")]
    swagger: Annotated[Url, eg(f"{SITE}/swagger/index.html")]
    redoc: Annotated[Url, eg(f"{SITE}/redoc")]


class HealthAnswer(Answer):
    """The web process answers."""

    status: Literal["healthy"]


class ReadyChecksAnswer(Answer):
    """For each part, ok or what is wrong with it."""

    database: Annotated[str, eg("ok")]
    store: Annotated[str, eg("ok")]
    collector: Annotated[
        str, eg("ok", "ok; why the collector inside this service ended; or that collectors write to another store")
    ]


class ReadyAnswer(Answer):
    """The database and the store answer, and the collector inside this service, if there is one, runs."""

    status: Literal["ready"]
    checks: ReadyChecksAnswer


class NotReadyAnswer(ErrorAnswer):
    """The database or the store does not answer, or the collector ended; the message and the checks say which."""

    checks: Annotated[ReadyChecksAnswer, eg({"database": "ok", "store": "does not answer", "collector": "ok"})]


class GpuAnswer(Answer):
    """A GPU, or a MIG instance of one, as the newest reading described it."""

    id: Annotated[str, eg(GPU_ID, "what the other paths take: the uuid, or uuid:instance for a MIG instance")]
    uuid: Annotated[str, eg(GPU_ID)]
    mig_id: Annotated[str, eg("", "empty for a physical GPU")]
    mig_profile: Annotated[str, eg("")]
    gpu_id: Annotated[int | None, eg(0, "index on its host")]
    device: Annotated[str, eg("nvidia0")]
    model_name: Annotated[str, eg("NVIDIA H100 80GB HBM3")]
    hostname: Annotated[str, eg(HOST_NAME)]
    driver_version: Annotated[str, eg("535.129.03")]
    namespace: Annotated[str, eg("research")]
    pod: Annotated[str, eg("train-7")]
    container: Annotated[str, eg("main")]
    state: Literal["reporting", "stale"]
    first_seen: Annotated[Time, eg("2025-07-18T20:42:34Z")]
    last_seen: Annotated[Time, eg(_TIME)]
    events: Annotated[EventCountsAnswer, Meta(description="ongoing events; a GPU's with those of its MIG instances")]
    url: Annotated[Url, eg(f"{BASE}/gpus/{GPU_ID}")]


class GpuPageAnswer(Answer):
    """A page of GPUs."""

    data: Annotated[list[str], eg([GPU_ID], "ids of the GPUs below")]
    count: Annotated[int, eg(247, "matching GPUs, on all pages")]
    gpus: list[GpuAnswer]
    next: NextUrl
    previous: PreviousUrl


class LatestAnswer(Answer):
    """The newest reading of one metric."""

    value: Annotated[float, eg(98.0)]
    unit: Annotated[str, eg("%")]
    timestamp: Annotated[Time, eg(_TIME)]
    age_seconds: Annotated[float, eg(4.2, "age of the reading by this service's clock")]


class GpuDetailAnswer(GpuAnswer):
    """A GPU with its newest readings."""

    latest: Annotated[dict[str, LatestAnswer], Meta(description="by metric name")]
    labels: Annotated[dict[str, str], eg({"DCGM_FI_DRIVER_VERSION": "535.129.03"})]
    telemetry_url: Annotated[Url, eg(f"{BASE}/gpus/{GPU_ID}/telemetry")]
    metrics_url: Annotated[Url, eg(f"{BASE}/gpus/{GPU_ID}/metrics")]
    host_url: Annotated[Url | None, eg(f"{BASE}/hosts/{HOST_NAME}")]


class MetricNamesAnswer(Answer):
    """The metrics for which a GPU has readings."""

    data: Annotated[list[str], eg(["DCGM_FI_DEV_GPU_TEMP", METRIC])]
    count: Annotated[int, eg(2, "metrics, on all pages")]
    next: NextUrl
    previous: PreviousUrl


class ReadingAnswer(Answer):
    """The value of one metric of one GPU at one time, with the GPU's description at that time."""

    timestamp: Annotated[Time, eg(_TIME, "UTC, to the nanosecond if the source gives that")]
    metric_name: Annotated[str, eg(METRIC)]
    gpu_id: Annotated[int | None, eg(0)]
    device: Annotated[str, eg("nvidia0")]
    uuid: Annotated[str, eg(GPU_ID)]
    model_name: Annotated[str, eg("NVIDIA H100 80GB HBM3")]
    hostname: Annotated[str, eg(HOST_NAME)]
    container: Annotated[str, eg("main")]
    pod: Annotated[str, eg("train-7")]
    namespace: Annotated[str, eg("research")]
    value: Annotated[float, eg(98.0)]
    unit: Annotated[str, eg("%", "empty when the catalogue does not know the metric")]
    mig_id: Annotated[str | UnsetType, Meta(description="present for MIG instances only")] = UNSET


class ReadingPageAnswer(Answer):
    """A page of readings."""

    data: list[ReadingAnswer]
    count: Annotated[int, eg(1, "rows in this answer")]
    next: NextUrl
    previous: PreviousUrl


class GroupAnswer(Answer):
    """The group of a series: the names it was grouped by."""

    gpu: str | UnsetType = UNSET
    host: Annotated[str | UnsetType, eg(HOST_NAME)] = UNSET
    model: str | UnsetType = UNSET
    namespace: str | UnsetType = UNSET
    pod: str | UnsetType = UNSET


class GroupSeriesAnswer(Answer):
    """One group over time."""

    group: GroupAnswer
    points: Annotated[
        list[tuple[Time, float | None]],
        eg(
            [["2025-07-18T20:30:00Z", 71.25], ["2025-07-18T20:35:00Z", None], ["2025-07-18T20:40:00Z", 68.5]],
            "[start of the window, value] for every window; null where there is no reading",
        ),
    ]


class SeriesAnswer(Answer):
    """A metric over time."""

    metric: Annotated[str, eg(METRIC)]
    unit: Annotated[str, eg("%")]
    agg: Annotated[str, eg("mean")]
    every: Annotated[str, eg("5m", "length of a window")]
    start_time: Annotated[Time, eg("2025-07-18T20:30:00Z", "readings at or after this time")]
    end_time: Annotated[Time, eg("2025-07-18T20:45:00Z", "readings before this time")]
    data: list[GroupSeriesAnswer]
    count: Annotated[int, eg(1, "groups in this answer")]
    tier: Annotated[
        Literal["raw", "1m", "1h"],
        eg("raw", "whether it comes from raw readings, or from roll-ups of a minute or an hour"),
    ]


class MetricSeriesAnswer(Answer):
    """One metric of a GPU over time."""

    metric: Annotated[str, eg(METRIC)]
    unit: Annotated[str, eg("%")]
    agg: Annotated[
        Literal["mean", "increase", "last", "bits"],
        Meta(
            description="how the readings of a window become one value. increase: by how much a counter grew; bits: each bit of a"
            " bitmask that was set in any reading"
        ),
    ]
    points: Annotated[
        list[tuple[Any, ...]],
        eg(
            [["2025-07-18T20:30:00Z", 71.25, 40.0, 98.0], ["2025-07-18T20:35:00Z", None, None, None]],
            "[start of the window, value], and for means also the lowest and the highest reading; null where there is no reading",
        ),
    ]


class GpuSeriesAnswer(Answer):
    """Many metrics of one GPU over time."""

    gpu: Annotated[str, eg(GPU_ID)]
    every: Annotated[str, eg("5m", "length of a window")]
    start_time: Annotated[Time, eg("2025-07-18T20:30:00Z", "readings at or after this time")]
    end_time: Annotated[Time, eg("2025-07-18T20:40:00Z", "readings before this time")]
    data: Annotated[list[MetricSeriesAnswer], Meta(description="in the order in which the metrics were asked for")]
    count: Annotated[int, eg(1, "metrics in this answer")]


class PlacementAnswer(Answer):
    """A pod on a GPU."""

    gpu: Annotated[str, eg(GPU_ID, "the uuid, or uuid:instance for a MIG instance")]
    uuid: Annotated[str, eg(GPU_ID)]
    hostname: Annotated[str, eg(HOST_NAME, "where the GPU is now")]
    gpu_id: Annotated[int | None, eg(0, "index on its host")]
    namespace: Annotated[str, eg("research")]
    pod: Annotated[str, eg("train-7")]
    container: Annotated[str, eg("main")]
    share: Annotated[bool, eg(False, "whether it shares the GPU with other pods")]
    started: Annotated[Time, eg("2025-07-18T20:40:00Z", "its first reading there")]
    last_seen: Annotated[Time, eg(_TIME)]
    ended: Annotated[Time | None, eg(None, "its last reading there; null: it still runs")]


class PlacementPageAnswer(Answer):
    """A page of placements."""

    data: list[PlacementAnswer]
    count: Annotated[int, eg(1, "placements, on all pages")]
    next: NextUrl
    previous: PreviousUrl


class HostAnswer(Answer):
    """A host with totals over its GPUs; null where no GPU reports the metric."""

    name: Annotated[str, eg(HOST_NAME)]
    gpu_count: Annotated[int, eg(8)]
    reporting: Annotated[int, eg(8)]
    stale: Annotated[int, eg(0)]
    mean_utilisation: Annotated[float | None, eg(71.5, "percent")]
    power_watts: Annotated[float | None, eg(4210.7)]
    memory_used_mib: Annotated[float | None, eg(512300.0)]
    last_seen: Annotated[Time, eg(_TIME)]
    expected: Annotated[int, eg(8, "slots that should have a GPU that reports; 0 for a retired host")]
    missing: Annotated[
        int,
        eg(0, "of these, the slots where none was ever seen, or whose GPU is silent while others on the host report"),
    ]
    state: Annotated[Literal["active", "maintenance", "retired"], eg("active", "as people set it")]
    owner: Annotated[str, eg("research", "a person or team, as people set it")]
    tags: Annotated[dict[str, str], eg({"rack": "r12"}, "as people set them")]
    events: Annotated[EventCountsAnswer, Meta(description="ongoing events, its own and those of its GPUs")]
    url: Annotated[Url, eg(f"{BASE}/hosts/{HOST_NAME}")]


class HostPageAnswer(Answer):
    """A page of hosts."""

    data: list[HostAnswer]
    count: Annotated[int, eg(1, "hosts, on all pages")]
    next: NextUrl
    previous: PreviousUrl


class HostDetailAnswer(HostAnswer):
    """A host with its GPUs."""

    gpus: list[GpuAnswer]


class FleetMetricAnswer(Answer):
    """The metric that was asked for."""

    name: Annotated[str, eg(METRIC)]
    title: Annotated[str, eg("GPU utilisation", "its name for people; the name itself where nobody has described it")]
    unit: Annotated[str, eg("%")]


class FleetCountsAnswer(Answer):
    """How many there are. expected = reporting + stale + missing + maintenance."""

    hosts: Annotated[int, eg(31)]
    gpus: Annotated[int, eg(247, "GPUs that the inventory knows")]
    expected: Annotated[int, eg(248, "slots that should have a GPU that reports")]
    reporting: Annotated[int, eg(247)]
    stale: Annotated[int, eg(0, "no GPU of their host reports")]
    missing: Annotated[int, eg(1, "their host reports other GPUs, but not these")]
    maintenance: Annotated[int, eg(0, "do not report, and need not")]
    idle: Annotated[int, eg(128, "report a utilisation of 0 %")]
    idle_held: Annotated[int, eg(21, "idle, with more than 1 GiB of memory in use")]
    idle_hosts: Annotated[int, eg(14, "hosts whose GPUs are all idle")]
    at_full: Annotated[int, eg(27, "report a utilisation of 100 %")]


class FleetTotalsAnswer(Answer):
    """Means and sums over the GPUs that report; null where none of them has the metric."""

    utilisation_mean: Annotated[float | None, eg(43.781, "%")]
    utilisation_p95: Annotated[float | None, eg(100.0, "%")]
    memory_used_mib: Annotated[float | None, eg(6550002.0)]
    memory_total_mib: Annotated[float | None, eg(20008729.0)]
    power_watts: Annotated[float | None, eg(64997.681)]
    idle_power_watts: Annotated[float | None, eg(10241.564, "of the GPUs that are idle")]


class FleetHostAnswer(Answer):
    """A host of the fleet."""

    name: Annotated[str, eg(HOST_NAME)]
    expected: Annotated[int, eg(8, "slots that should have a GPU that reports")]
    state: Annotated[Literal["active", "maintenance"], eg("active", "as people set it")]
    owner: Annotated[str, eg("research")]
    tags: Annotated[dict[str, str], eg({"rack": "r12"})]
    last_seen: Annotated[Time | None, eg(_TIME)]
    utilisation_mean: Annotated[float | None, eg(71.25, "%")]
    power_watts: Annotated[float | None, eg(2410.5)]
    mark: Annotated[int, eg(0, "the worst ongoing event of the host itself: 0 none, 1 critical, 2 warning, 3 info")]


class FleetGpusAnswer(Answer):
    """The slots, column by column: each list has one item for each slot, by host and slot."""

    host: Annotated[list[int], eg([0], "place in hosts")]
    slot: Annotated[list[int], eg([3], "index on the host; -1: unknown")]
    id: Annotated[list[str], eg(["GPU-5fd4f087"], "short where that is unique; empty: no GPU was ever seen there")]
    state: Annotated[list[int], eg([0], "0 reporting, 1 stale, 2 missing, 3 in maintenance")]
    last_seen: Annotated[
        list[Time | None], eg([None], "of a GPU that does not report; null: it reports, or was never seen")
    ]
    model: Annotated[list[int], eg([0], "place in models; -1: unknown")]
    namespace: Annotated[list[int], eg([0], "place in namespaces; -1: none")]
    pod: Annotated[list[int], eg([0], "place in pods; -1: none")]
    utilisation: Annotated[list[float | None], eg([98.0], "%; null: no reading, or an old one")]
    temperature: Annotated[list[float | None], eg([64.0], "°C")]
    power: Annotated[list[float | None], eg([574.2], "W")]
    memory_used: Annotated[list[float | None], eg([61440.0], "MiB")]
    memory_total: Annotated[list[float | None], eg([81007.0], "MiB")]
    value: Annotated[list[float | None], eg([98.0], "of the metric asked for")]
    mark: Annotated[
        list[int], eg([0], "the worst ongoing event of the GPU or slot: 0 none, 1 critical, 2 warning, 3 info")
    ]


class FleetAnswer(Answer):
    """The fleet now."""

    newest: Annotated[Time | None, eg(_TIME, "the newest reading of all")]
    live: Annotated[bool, eg(True, "whether a live source reports; a capture's times are those of its own day")]
    metric: FleetMetricAnswer
    metrics: Annotated[list[str], eg([METRIC], "what can be asked for: the metrics that any GPU has")]
    prefix: Annotated[str, eg("mtv5-dgx1-", "what all host names begin with")]
    counts: FleetCountsAnswer
    totals: FleetTotalsAnswer
    events: Annotated[
        EventCountsAnswer,
        Meta(
            description="ongoing events; without those above info of rules that only store, which mark nothing either"
        ),
    ]
    hosts: list[FleetHostAnswer]
    models: Annotated[list[str], eg(["NVIDIA H100 80GB HBM3"])]
    namespaces: Annotated[list[str], eg(["research"])]
    pods: Annotated[list[str], eg(["train-7"])]
    gpus: FleetGpusAnswer | None


class HostAvailabilityAnswer(Answer):
    """Which metrics a host has."""

    name: Annotated[str, eg(HOST_NAME)]
    have: Annotated[
        list[float], eg([1.0, 0.875], "for each metric, the share (0 to 1) of its slots whose GPU has a fresh reading")
    ]


class AvailabilityAnswer(Answer):
    """Which metrics there are, host by host. Hosts without a slot are left out."""

    metrics: Annotated[list[str], eg([METRIC, "DCGM_FI_DEV_GPU_TEMP"], "the metrics that any GPU has, sorted by name")]
    hosts: list[HostAvailabilityAnswer]


class BandsAnswer(Answer):
    """How one metric is spread over the GPUs, window by window. Each list has one item a window; null: no reading."""

    metric: Annotated[str, eg(METRIC)]
    unit: Annotated[str, eg("%")]
    every: Annotated[str, eg("1m", "length of a window")]
    start_time: Annotated[Time, eg("2025-07-18T20:42:00Z")]
    end_time: Annotated[Time, eg("2025-07-18T20:43:00Z")]
    source: Annotated[
        Literal["store", "kept"],
        eg("store", "store: from all readings; kept: from what collectors keep of each minute, for large fleets"),
    ]
    time: Annotated[list[Time], eg(["2025-07-18T20:42:00Z"], "start of the window")]
    min: Annotated[list[float | None], eg([0.0], "the smallest of the GPUs' means in the window")]
    p5: Annotated[list[float | None], eg([0.0])]
    median: Annotated[list[float | None], eg([31.0])]
    p95: Annotated[list[float | None], eg([100.0])]
    max: Annotated[list[float | None], eg([100.0])]
    sum: Annotated[list[float | None], eg([10814.0], "over GPUs of their means, as the power of a fleet")]
    count: Annotated[list[int], eg([247], "GPUs that reported in the window")]


class FoundAnswer(Answer):
    """Something with a page of its own."""

    kind: Literal["host", "gpu", "pod", "namespace", "rule", "xid"]
    name: Annotated[str, eg(HOST_NAME)]
    detail: Annotated[str, eg("8 GPUs", "what it is or where it is, in a few words")]
    url: Annotated[str, eg(f"/hosts/{HOST_NAME}", "path of its page, below the service's address")]


class SearchAnswer(Answer):
    """What a search found."""

    data: list[FoundAnswer]
    count: Annotated[int, eg(1, "rows in this answer")]


class MetricAnswer(Answer):
    """A metric of the catalogue."""

    name: Annotated[str, eg(METRIC)]
    aliases: Annotated[list[str], eg([])]
    title: Annotated[str, eg("GPU utilisation")]
    unit: Annotated[str, eg("%")]
    type: Literal["gauge", "counter", "event", "unknown"]
    scope: Annotated[
        Literal["board", "instance", "unknown"],
        eg("instance", "board: the value is of the whole GPU, and MIG instances only repeat it"),
    ]
    combine: Annotated[
        Literal["sum", "mean", "max", "one", "never"],
        eg(
            "mean",
            "how a GPU's value follows from those of its MIG instances, or of the pods that share it. one: any of them. never: the same, for"
            " codes, states and bitmasks, which are not averaged or added over time either",
        ),
    ]
    range: Annotated[
        list[float | None],
        eg([0.0, 100.0], "lowest and highest plausible value; null: no bound"),
        Meta(extra_json_schema={"minItems": 2, "maxItems": 2}),
    ]
    description: Annotated[str, eg("Share of time in which a kernel ran.")]
    seen: Annotated[bool, eg(True, "whether the store has readings of it")]


class MetricListAnswer(Answer):
    """The catalogue of metrics."""

    data: list[MetricAnswer]
    count: Annotated[int, eg(1, "metrics, on all pages")]
    next: NextUrl
    previous: PreviousUrl


class BrokerAnswer(Answer):
    """The broker's own statistics; null while it does not answer."""

    available: Annotated[bool, eg(True)]
    error: Annotated[str | None, eg(None, "why it does not answer")]
    address: Annotated[str, eg("localhost:9000")]
    total_messages: Annotated[int | None, eg(25)]
    oldest_offset: Annotated[int | None, eg(0)]
    latest_offset: Annotated[int | None, eg(24)]
    subscriber_count: Annotated[int | None, eg(1)]
    bytes: Annotated[int | None, eg(61440)]
    segments: Annotated[int | None, eg(1)]
    uptime: Annotated[float | None, eg(3600.5, "seconds")]


class SubscriberAnswer(Answer):
    """One subscriber of the broker's log."""

    id: Annotated[str, eg("collector-1")]
    judges: Annotated[bool, eg(False, "it is the watch, which judges the fleet's health, and no collector")]
    current_offset: Annotated[int | None, eg(25)]
    committed_offset: Annotated[int | None, eg(24)]
    lag: Annotated[int | None, eg(0, "messages it has not committed")]
    connected: Annotated[bool, eg(True)]


class CollectorAnswer(Answer):
    """The counters of one collector."""

    id: Annotated[str, eg("collector-1")]
    started: Annotated[Time, eg("2025-07-18T20:40:00Z")]
    updated: Annotated[Time, eg("2025-07-18T20:42:40Z")]
    committed_offset: Annotated[int, eg(24)]
    messages: Annotated[int, eg(25)]
    readings_stored: Annotated[int, eg(2470)]
    refused: Annotated[dict[str, int], eg({"blank": 3}, "readings refused, by reason")]
    remarks: Annotated[dict[str, int], eg({"bad_label": 2}, "readings taken without what they do not need, by reason")]
    passed_over: Annotated[dict[str, int], eg({"not_supported": 8}, "rows that are by design no readings, by reason")]


class ReadingCountsAnswer(Answer):
    """Sums over all collectors. Each counts what it wrote, so readings that two collectors wrote count twice."""

    stored: Annotated[int, eg(2470)]
    refused: Annotated[dict[str, int], eg({"blank": 3}, "readings refused, by reason")]
    remarks: Annotated[dict[str, int], eg({"bad_label": 2}, "readings taken without what they do not need, by reason")]
    passed_over: Annotated[dict[str, int], eg({"not_supported": 8}, "rows that are by design no readings, by reason")]


class StoreAnswer(Answer):
    """The contents of the store."""

    type: Annotated[str, eg("sqlite")]
    readings: Annotated[int | None, eg(2470, "null on InfluxDB, which would have to scan them: see readings.stored")]
    shares: Annotated[int | None, eg(0, "readings of single pods on shared GPUs, stored separately; null on InfluxDB")]
    series: Annotated[
        int | None, eg(2470, "one metric of one GPU; on InfluxDB a GPU with its description, or a pod's share of one")
    ]
    bytes: Annotated[int, eg(278528)]
    oldest: Annotated[Time | None, eg("2025-07-18T20:42:34Z", "null on InfluxDB")]
    newest: Annotated[Time | None, eg(_TIME, "on InfluxDB from the inventory")]
    newest_age_seconds: Annotated[float | None, eg(4.2)]


class HostAgeAnswer(Answer):
    """The age of a host's newest reading."""

    name: Annotated[str, eg(HOST_NAME)]
    newest: Annotated[Time, eg(_TIME, "time of its newest reading")]
    age_seconds: Annotated[float, eg(4.2)]


class WatchAnswer(Answer):
    """How far the judging of the fleet's health is."""

    judging: Annotated[bool, eg(True, "whether one process holds the lease to judge")]
    offset: Annotated[int, eg(24, "of the newest message that is judged; -1: none yet")]
    lag: Annotated[
        int | None, eg(0, "messages in the broker's log that are not; null while the broker does not answer")
    ]
    judged: Annotated[int, eg(2470, "readings so far")]
    updated: Annotated[Time | None, eg("2025-07-18T20:42:40Z", "when it was written down; null: not yet")]
    age_seconds: Annotated[float | None, eg(3.5, "since then")]
    open_events: EventCountsAnswer
    notices_waiting: Annotated[int, eg(0, "notices that are not sent yet")]
    notices_overdue_seconds: Annotated[float, eg(0.0, "for how long the first of them should have been sent")]


class RollupsAnswer(Answer):
    """How far the roll-ups are. Windows that begin in [since, until) have all been made; where both are null there are none yet."""

    off: Annotated[str | None, eg(None, "why there are none; null: there are")]
    rolling: Annotated[bool, eg(True, "whether a process makes them now")]
    minutes_since: Annotated[Time | None, eg(None, "null: as far back as readings go")]
    minutes_until: Annotated[Time | None, eg("2025-07-18T20:41:00Z")]
    hours_since: Annotated[Time | None, eg(None, "null: as far back as readings go")]
    hours_until: Annotated[Time | None, eg("2025-07-18T20:00:00Z")]
    minutes_waiting: Annotated[int, eg(1, "windows that readings were written into since they were made")]
    hours_waiting: Annotated[int, eg(1)]
    lag_seconds: Annotated[float | None, eg(42.5, "age of minutes_until; null: there is none")]


class StatsAnswer(Answer):
    """The pipeline from broker to store, and the judging of health."""

    broker: BrokerAnswer
    subscribers: list[SubscriberAnswer]
    collectors: list[CollectorAnswer]
    readings: ReadingCountsAnswer
    store: StoreAnswer
    hosts: Annotated[list[HostAgeAnswer], Meta(description="the one with the oldest newest reading first")]
    watch: Annotated[WatchAnswer | None, Meta(description="null: health was never judged here")]
    rollups: RollupsAnswer


class TokenAnswer(Answer):
    """An API token."""

    id: Annotated[int, eg(1)]
    name: Annotated[str, eg("grafana")]
    scope: Literal["read", "admin"]
    state: Literal["active", "expired", "revoked"]
    hint: Annotated[str, eg("gputel_Zk3Q", "the start of the token")]
    created: Annotated[Time, eg("2025-07-18T20:40:00Z")]
    expires: Annotated[Time | None, eg("2025-10-16T20:40:00Z", "null: never")]
    revoked: Time | None
    last_used: Annotated[Time | None, eg("2025-07-18T20:42:00Z", "to the minute")]


class TokenListAnswer(Answer):
    """The API tokens."""

    data: list[TokenAnswer]
    count: Annotated[int, eg(1, "tokens, on all pages")]
    next: NextUrl
    previous: PreviousUrl
