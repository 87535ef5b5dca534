"""The inventory: which hosts and GPUs there are, what ran where, and how the collectors are doing."""

from __future__ import annotations

from django.db import models


class Host(models.Model):
    """A machine that holds GPUs, known by the name its exporter gives."""

    name = models.CharField(max_length=255, unique=True)
    first_seen = models.DateTimeField()
    last_seen = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class GPU(models.Model):
    """A GPU or a MIG instance of one. Its identity never changes; host, index and attributes are the newest known.

    ``latest`` maps metric name to [value, time in ns]: the newest reading of each metric. All times are the readings' own.
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
    latest = models.JSONField(default=dict)
    labels = models.JSONField(default=dict)

    class Meta:
        ordering = ("host__name", "index", "id")
        verbose_name = "GPU"

    def __str__(self) -> str:
        return self.id


class Placement(models.Model):
    """What ran on a GPU, from when to when. The open one (no ``ended``) is what runs there now."""

    gpu = models.ForeignKey(GPU, on_delete=models.CASCADE, related_name="placements")
    namespace = models.CharField(max_length=255, blank=True, default="")
    pod = models.CharField(max_length=255, blank=True, default="")
    container = models.CharField(max_length=255, blank=True, default="")
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
        indexes = (models.Index(fields=("namespace", "pod", "started"), name="placement_by_pod"),)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod} on {self.gpu_id}"


class CollectorStatus(models.Model):
    """What one collector has done, kept where the web service can ask: counters since the row was made."""

    collector_id = models.CharField(max_length=128, primary_key=True)
    started = models.DateTimeField(help_text="start of its current process")
    updated = models.DateTimeField()
    committed_offset = models.BigIntegerField(default=-1)
    messages = models.BigIntegerField(default=0)
    readings_stored = models.BigIntegerField(default=0)
    refused = models.JSONField(
        default=dict, help_text="reason: readings, of this collector and of the streamers it heard"
    )

    class Meta:
        verbose_name_plural = "collector status"

    def __str__(self) -> str:
        return self.collector_id
