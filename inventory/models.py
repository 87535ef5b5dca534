"""The inventory: hosts, GPUs, which pods ran where, and the state of the collectors.

All times except CollectorStatus's are those of readings, cut to microseconds.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q, Value


class AssetState(models.TextChoices):
    """What people decided about a host or GPU. It is about work on it, not about what it reports."""

    ACTIVE = "active", "active"
    MAINTENANCE = "maintenance", "in maintenance"
    RETIRED = "retired", "retired"


class Asset(models.Model):
    """What people note about a host or GPU. Collectors never write these fields."""

    # With defaults in the database, because a collector of the version before leaves them out.
    asset_state = models.CharField(
        "state",
        max_length=16,
        choices=AssetState.choices,
        default=AssetState.ACTIVE,
        db_default=AssetState.ACTIVE,
        help_text="what is in maintenance or retired is not expected to report",
    )
    owner = models.CharField(max_length=255, blank=True, default="", db_default="", help_text="a person or team")
    notes = models.TextField(blank=True, default="", db_default="")
    tags = models.JSONField(
        default=dict, blank=True, db_default=Value({}, models.JSONField()), help_text="names and values, as rack: r12"
    )

    class Meta:
        abstract = True


# Collectors must leave these alone: they may have read them before a person changed them.
ASSET_FIELDS = frozenset({"asset_state", "owner", "notes", "tags", "expected_gpus"})


class Host(Asset):
    """A machine with GPUs, under the name that its exporter gives."""

    name = models.CharField(max_length=255, unique=True)
    first_seen = models.DateTimeField()
    last_seen = models.DateTimeField(db_index=True)
    expected_gpus = models.PositiveSmallIntegerField(
        "expected GPUs", null=True, blank=True, help_text="empty: learned from other hosts of the same model"
    )

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class GPU(Asset):
    """A GPU or a MIG instance. Its identity never changes; host, index and attributes are the newest known.

    A GPU cut into instances has a row of its own: it is seen whenever one of them is, and has the readings of the whole
    board (power, temperature). Newest readings are in NewestRow, and ``last_seen`` is up to a minute behind them.
    """

    id = models.CharField(max_length=200, primary_key=True, help_text="uuid, and :instance for a MIG instance")
    uuid = models.CharField(max_length=128, db_index=True)
    mig_id = models.CharField(max_length=64, blank=True, default="")
    mig_profile = models.CharField(max_length=64, blank=True, default="")
    host = models.ForeignKey(Host, on_delete=models.PROTECT, related_name="gpus", null=True, blank=True)
    index = models.IntegerField(null=True, blank=True)
    device = models.CharField(max_length=64, blank=True, default="")
    model_name = models.CharField(max_length=128, blank=True, default="", db_index=True)
    driver_version = models.CharField(max_length=64, blank=True, default="", db_index=True)
    container = models.CharField(max_length=255, blank=True, default="")
    pod = models.CharField(max_length=255, blank=True, default="", db_index=True)
    namespace = models.CharField(max_length=255, blank=True, default="", db_index=True)
    first_seen = models.DateTimeField()
    last_seen = models.DateTimeField(db_index=True)
    # Read by nobody. A collector of the version before still writes it while an upgrade rolls; the next release drops it.
    latest = models.JSONField(default=dict, blank=True, editable=False, db_default=Value({}, models.JSONField()))
    labels = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ("host__name", "index", "id")
        verbose_name = "GPU"

    def __str__(self) -> str:
        return self.id


class Residence(models.Model):
    """A host slot that a GPU has been in. The open row (no ``until``) is where it is now."""

    gpu = models.ForeignKey(GPU, on_delete=models.CASCADE, related_name="residences")
    host = models.ForeignKey(Host, on_delete=models.PROTECT, related_name="residences", null=True, blank=True)
    index = models.IntegerField(null=True, blank=True)
    since = models.DateTimeField(help_text="its first reading there")
    until = models.DateTimeField(null=True, blank=True, help_text="its last reading there, once it was seen elsewhere")

    class Meta:
        ordering = ("-since",)
        constraints = (models.UniqueConstraint(fields=("gpu", "host", "index"), name="one_residence_per_place"),)

    def __str__(self) -> str:
        return f"{self.gpu_id} in slot {self.index} of host {self.host_id}"


class Placement(models.Model):
    """A pod on a GPU, from when to when. The open row (no ``ended``) is what runs there now.

    ``ended`` is the last reading that showed the pod; it is set once newer readings show something else. A ``share`` is
    one pod's part of a GPU that several pods use; several may be open at once.
    """

    gpu = models.ForeignKey(GPU, on_delete=models.CASCADE, related_name="placements")
    namespace = models.CharField(max_length=255, blank=True, default="")
    pod = models.CharField(max_length=255, blank=True, default="")
    container = models.CharField(max_length=255, blank=True, default="")
    share = models.BooleanField(default=False)
    started = models.DateTimeField()
    last_seen = models.DateTimeField()
    ended = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-started",)
        constraints = (
            models.UniqueConstraint(
                fields=("gpu", "namespace", "pod", "container", "started"), name="one_placement_per_start"
            ),
        )
        indexes = (
            models.Index(fields=("namespace", "pod", "started"), name="placement_by_pod"),
            models.Index(fields=("gpu", "last_seen"), name="placement_by_gpu"),
            models.Index(fields=("gpu",), condition=Q(ended=None), name="placement_open"),
        )

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod} on {self.gpu_id}"


STORE_LENGTH = 512


class NewestRow(models.Model):
    """The newest readings that one collector saw of a host's GPUs, packed (see inventory.packing).

    Its writer loads it once and then only writes it; readers merge the rows of all writers. ``version`` rises with each
    write.
    """

    host = models.CharField(max_length=255, help_text="the host's name; empty for GPUs without a host")
    writer = models.CharField(max_length=128, help_text="COLLECTOR_ID")
    version = models.BigIntegerField()
    data = models.BinaryField()  # last, so that a database reads the others without it

    class Meta:
        constraints = (models.UniqueConstraint(fields=("host", "writer"), name="one_newest_row_per_writer"),)

    def __str__(self) -> str:
        return f"{self.host} by {self.writer}"


class MinuteBands(models.Model):
    """How some metrics spread over the fleet in one minute, packed (see inventory.bands), as one collector saw it."""

    minute = models.BigIntegerField(help_text="minutes since 1970 UTC, of the readings' own times")
    writer = models.CharField(max_length=128, help_text="COLLECTOR_ID")
    readings = models.PositiveIntegerField(help_text="how many are in it")
    data = models.BinaryField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=("minute", "writer"), name="one_minute_per_writer"),)

    def __str__(self) -> str:
        return f"minute {self.minute} by {self.writer}"


class RollupTouch(models.Model):
    """Raw readings were written into a window of a roll-up tier since it was rolled up last: it must be made anew.

    There is a row for each process that wrote. ``version`` is another one after each touch.
    """

    store = models.CharField(max_length=STORE_LENGTH, help_text="the store of the readings")
    tier = models.CharField(max_length=8)
    start_ns = models.BigIntegerField(help_text="start of the window, nanoseconds since 1970 UTC")
    writer = models.CharField(max_length=128, help_text="the process that wrote")
    version = models.BigIntegerField()

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("store", "tier", "start_ns", "writer"), name="one_touch_per_writer"),
        )

    def __str__(self) -> str:
        return f"{self.tier} from {self.start_ns} by {self.writer}"


class RollupState(models.Model):
    """How far the roll-ups of one store are, and which process makes them (see inventory.leases).

    Windows that begin in [``minutes_from_ns``, ``minutes_until_ns``) have all been rolled up; of hours likewise.
    """

    store = models.CharField(max_length=STORE_LENGTH, unique=True)
    holder = models.CharField(max_length=128, blank=True, default="")
    lease_until = models.DateTimeField(null=True, blank=True)
    minutes_from_ns = models.BigIntegerField(default=0)
    minutes_until_ns = models.BigIntegerField(default=0)
    hours_from_ns = models.BigIntegerField(default=0)
    hours_until_ns = models.BigIntegerField(default=0)
    newest_ns = models.BigIntegerField(default=0, help_text="start of the newest minute that was ever rolled up")
    updated = models.DateTimeField(null=True, blank=True, help_text="when windows were last made")

    def __str__(self) -> str:
        return f"roll-ups of {self.store}"


class CollectorStatus(models.Model):
    """The counters of one collector since the row was created, stored where the web service can read them."""

    collector_id = models.CharField(max_length=128, primary_key=True)
    started = models.DateTimeField(help_text="start of its current process")
    updated = models.DateTimeField()
    committed_offset = models.BigIntegerField(default=-1)
    messages = models.BigIntegerField(default=0)
    readings_stored = models.BigIntegerField(default=0)
    refused = models.JSONField(
        default=dict, blank=True, help_text="reason: readings, of this collector and of the streamers it heard"
    )

    # With defaults in the database, because a collector of the version before leaves them out.
    store = models.CharField(max_length=STORE_LENGTH, blank=True, db_default="", help_text="where it stores readings")
    store_key = models.CharField(max_length=STORE_LENGTH, blank=True, db_default="", editable=False)

    class Meta:
        verbose_name_plural = "collector status"

    def __str__(self) -> str:
        return self.collector_id
