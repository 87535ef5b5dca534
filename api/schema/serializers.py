"""The shapes of the answers, for the schema. Answers are built as plain data; a test holds them to these fields."""

from __future__ import annotations

from rest_framework import serializers

# A field called data is fine for DRF, which takes fields out of the class; only the type checker minds.


class ErrorSerializer(serializers.Serializer[None]):
    """Every error."""

    error = serializers.CharField(help_text="a code for programs, as bad_request")
    message = serializers.CharField(help_text="one line for people")


class IndexSerializer(serializers.Serializer[None]):
    """Where everything is."""

    gpus = serializers.URLField()
    hosts = serializers.URLField()
    telemetry = serializers.URLField()
    query = serializers.URLField(help_text="an example: mean GPU utilisation by host")
    metrics = serializers.URLField()
    stats = serializers.URLField()
    schema = serializers.URLField()
    swagger = serializers.URLField()
    redoc = serializers.URLField()


class HealthSerializer(serializers.Serializer[None]):
    """The process answers."""

    status = serializers.ChoiceField(choices=["healthy"])


class ReadyChecksSerializer(serializers.Serializer[None]):
    """ok, or what is wrong."""

    database = serializers.CharField()
    store = serializers.CharField()


class ReadySerializer(serializers.Serializer[None]):
    """Database and store answer."""

    status = serializers.ChoiceField(choices=["ready"])
    checks = ReadyChecksSerializer()


class NotReadySerializer(ErrorSerializer):
    """The message and the checks name what does not answer."""

    checks = ReadyChecksSerializer()


class PageSerializer(serializers.Serializer[None]):
    """Links to the neighbouring pages."""

    next = serializers.URLField(allow_null=True, help_text="the next page")
    previous = serializers.URLField(allow_null=True, help_text="the page before")


class GpuSerializer(serializers.Serializer[None]):
    """A GPU, or a MIG instance of one, as the newest reading described it."""

    id = serializers.CharField(help_text="uuid, and :instance for a MIG instance: what the other paths take")
    uuid = serializers.CharField()
    mig_id = serializers.CharField(allow_blank=True, help_text="empty for a physical GPU")
    mig_profile = serializers.CharField(allow_blank=True)
    gpu_id = serializers.IntegerField(allow_null=True, help_text="index on its host")
    device = serializers.CharField(allow_blank=True)
    model_name = serializers.CharField(allow_blank=True)
    hostname = serializers.CharField(allow_blank=True)
    driver_version = serializers.CharField(allow_blank=True)
    namespace = serializers.CharField(allow_blank=True)
    pod = serializers.CharField(allow_blank=True)
    container = serializers.CharField(allow_blank=True)
    state = serializers.ChoiceField(choices=["reporting", "stale"])
    first_seen = serializers.DateTimeField()
    last_seen = serializers.DateTimeField()
    url = serializers.URLField()


class GpuPageSerializer(PageSerializer):
    """A page of the fleet."""

    data = serializers.ListField(  # type: ignore[assignment]
        child=serializers.CharField(), help_text="ids of the GPUs below"
    )
    count = serializers.IntegerField(help_text="how many match, on all pages")
    gpus = GpuSerializer(many=True)


class LatestSerializer(serializers.Serializer[None]):
    """The newest reading of one metric."""

    value = serializers.FloatField()
    unit = serializers.CharField(allow_blank=True)
    timestamp = serializers.DateTimeField()
    age_seconds = serializers.FloatField(help_text="of the reading, by this service's clock")


class GpuDetailSerializer(GpuSerializer):
    """A GPU with its newest readings."""

    latest = serializers.DictField(child=LatestSerializer(), help_text="by metric name")
    labels = serializers.DictField(child=serializers.CharField(allow_blank=True))
    telemetry_url = serializers.URLField()
    metrics_url = serializers.URLField()
    host_url = serializers.URLField(allow_null=True)


class MetricNamesSerializer(serializers.Serializer[None]):
    """The metrics that a GPU has readings of."""

    data = serializers.ListField(child=serializers.CharField())  # type: ignore[assignment]
    count = serializers.IntegerField()


class ReadingSerializer(serializers.Serializer[None]):
    """One metric of one GPU at one time, with what described the GPU then."""

    timestamp = serializers.DateTimeField(help_text="UTC, to the nanosecond where the source was")
    metric_name = serializers.CharField()
    gpu_id = serializers.IntegerField(allow_null=True)
    device = serializers.CharField(allow_blank=True)
    uuid = serializers.CharField()
    mig_id = serializers.CharField(required=False, help_text="only where there is one")
    model_name = serializers.CharField(allow_blank=True)
    hostname = serializers.CharField(allow_blank=True)
    container = serializers.CharField(allow_blank=True)
    pod = serializers.CharField(allow_blank=True)
    namespace = serializers.CharField(allow_blank=True)
    value = serializers.FloatField()
    unit = serializers.CharField(allow_blank=True, help_text="empty when the catalogue does not know the metric")


class ReadingPageSerializer(PageSerializer):
    """A page of readings."""

    data = ReadingSerializer(many=True)  # type: ignore[assignment]
    count = serializers.IntegerField(help_text="rows in this answer")


class GroupSerializer(serializers.Serializer[None]):
    """What a series is of: only the names that it was grouped by."""

    gpu = serializers.CharField(required=False)
    host = serializers.CharField(required=False, allow_blank=True)
    model = serializers.CharField(required=False, allow_blank=True)
    namespace = serializers.CharField(required=False, allow_blank=True)
    pod = serializers.CharField(required=False, allow_blank=True)


class PointField(serializers.ListField):
    """A window's beginning and its value."""


class GroupSeriesSerializer(serializers.Serializer[None]):
    """One group over time."""

    group = GroupSerializer()
    points = serializers.ListField(
        child=PointField(),
        help_text="[beginning of the window, value] for every window; null where there is no reading",
    )


class SeriesSerializer(serializers.Serializer[None]):
    """A metric over time."""

    metric = serializers.CharField()
    unit = serializers.CharField(allow_blank=True)
    agg = serializers.CharField()
    every = serializers.CharField(help_text="length of a window")
    start_time = serializers.DateTimeField(help_text="readings at or after this time")
    end_time = serializers.DateTimeField(help_text="readings before this time")
    data = GroupSeriesSerializer(many=True)  # type: ignore[assignment]
    count = serializers.IntegerField(help_text="groups in this answer")


class HostSerializer(serializers.Serializer[None]):
    """A host and its GPUs in sum; null where no GPU of it reports the metric."""

    name = serializers.CharField()
    gpu_count = serializers.IntegerField()
    reporting = serializers.IntegerField()
    stale = serializers.IntegerField()
    mean_utilisation = serializers.FloatField(allow_null=True, help_text="percent")
    power_watts = serializers.FloatField(allow_null=True)
    memory_used_mib = serializers.FloatField(allow_null=True)
    last_seen = serializers.DateTimeField()
    url = serializers.URLField()


class HostPageSerializer(PageSerializer):
    """A page of hosts."""

    data = HostSerializer(many=True)  # type: ignore[assignment]
    count = serializers.IntegerField(help_text="how many there are, on all pages")


class HostDetailSerializer(HostSerializer):
    """A host with its GPUs."""

    gpus = GpuSerializer(many=True)


class MetricSerializer(serializers.Serializer[None]):
    """What a metric is."""

    name = serializers.CharField()
    aliases = serializers.ListField(child=serializers.CharField())
    title = serializers.CharField()
    unit = serializers.CharField(allow_blank=True)
    type = serializers.ChoiceField(choices=["gauge", "counter", "event", "unknown"])
    range = serializers.ListField(
        child=serializers.FloatField(allow_null=True),
        min_length=2,
        max_length=2,
        help_text="lowest and highest value that can be true; null: no bound",
    )
    description = serializers.CharField(allow_blank=True)
    seen = serializers.BooleanField(help_text="whether there are readings of it")


class MetricListSerializer(serializers.Serializer[None]):
    """The catalogue."""

    data = MetricSerializer(many=True)  # type: ignore[assignment]
    count = serializers.IntegerField()


class BrokerSerializer(serializers.Serializer[None]):
    """What the broker says of itself; null figures while it does not answer."""

    available = serializers.BooleanField()
    error = serializers.CharField(allow_null=True, help_text="why it does not answer")
    address = serializers.CharField()
    total_messages = serializers.IntegerField(allow_null=True)
    oldest_offset = serializers.IntegerField(allow_null=True)
    latest_offset = serializers.IntegerField(allow_null=True)
    subscriber_count = serializers.IntegerField(allow_null=True)
    bytes = serializers.IntegerField(allow_null=True)
    segments = serializers.IntegerField(allow_null=True)
    uptime = serializers.FloatField(allow_null=True, help_text="seconds")


class SubscriberSerializer(serializers.Serializer[None]):
    """One reader of the log."""

    id = serializers.CharField()
    current_offset = serializers.IntegerField(allow_null=True)
    committed_offset = serializers.IntegerField(allow_null=True)
    lag = serializers.IntegerField(allow_null=True, help_text="messages it has not committed")
    connected = serializers.BooleanField()


class CollectorSerializer(serializers.Serializer[None]):
    """What one collector has done."""

    id = serializers.CharField()
    started = serializers.DateTimeField()
    updated = serializers.DateTimeField()
    committed_offset = serializers.IntegerField()
    messages = serializers.IntegerField()
    readings_stored = serializers.IntegerField()
    refused = serializers.DictField(child=serializers.IntegerField(), help_text="readings refused, by reason")


class ReadingCountsSerializer(serializers.Serializer[None]):
    """The sum over all collectors; each counts what it wrote, so two that read the same log count twice."""

    stored = serializers.IntegerField()
    refused = serializers.DictField(child=serializers.IntegerField(), help_text="readings refused, by reason")


class StoreSerializer(serializers.Serializer[None]):
    """What the store holds."""

    type = serializers.CharField()
    readings = serializers.IntegerField(
        allow_null=True, help_text="null on InfluxDB, which could only count by a scan: see readings.stored"
    )
    shares = serializers.IntegerField(
        allow_null=True, help_text="readings of one pod's part of a shared GPU, kept apart; null on InfluxDB"
    )
    series = serializers.IntegerField(
        allow_null=True, help_text="one metric of one GPU; on InfluxDB one GPU as described, or a share of one"
    )
    bytes = serializers.IntegerField()
    oldest = serializers.DateTimeField(allow_null=True, help_text="null on InfluxDB")
    newest = serializers.DateTimeField(allow_null=True, help_text="on InfluxDB as the inventory has it")
    newest_age_seconds = serializers.FloatField(allow_null=True)


class HostAgeSerializer(serializers.Serializer[None]):
    """When a host was last heard of."""

    name = serializers.CharField()
    newest = serializers.DateTimeField(help_text="time of its newest reading")
    age_seconds = serializers.FloatField()


class StatsSerializer(serializers.Serializer[None]):
    """The pipeline from broker to store."""

    broker = BrokerSerializer()
    subscribers = SubscriberSerializer(many=True)
    collectors = CollectorSerializer(many=True)
    readings = ReadingCountsSerializer()
    store = StoreSerializer()
    hosts = HostAgeSerializer(many=True, help_text="the longest silent first")


class TokenSerializer(serializers.Serializer[None]):
    """A program's permission to ask."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    scope = serializers.ChoiceField(choices=["read", "admin"])
    state = serializers.ChoiceField(choices=["active", "expired", "revoked"])
    hint = serializers.CharField(help_text="how the token begins")
    created = serializers.DateTimeField()
    expires = serializers.DateTimeField(allow_null=True, help_text="null: never")
    revoked = serializers.DateTimeField(allow_null=True)
    last_used = serializers.DateTimeField(allow_null=True, help_text="to the minute")


class TokenListSerializer(serializers.Serializer[None]):
    """Who may ask."""

    data = TokenSerializer(many=True)  # type: ignore[assignment]
    count = serializers.IntegerField()
