"""What the health engine found, what people said about it, and the state that ``manage.py watch`` resumes from.

Times of events are those of readings, cut to microseconds; others are by the clock of who wrote the row.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class Severity(models.TextChoices):
    """How bad it is, from the least to the worst."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class EntityKind(models.TextChoices):
    """What an event is about."""

    GPU = "gpu", "GPU"
    SLOT = "slot", "slot"
    HOST = "host", "host"
    SOURCE = "source", "source"
    FLEET = "fleet", "fleet"


class EventState(models.TextChoices):
    """Whether it still holds. Unknown: nothing is heard of the GPU or host, which is no recovery."""

    OPEN = "open"
    UNKNOWN = "unknown"
    CLOSED = "closed"


# The states of events that are not over.
ONGOING = (EventState.OPEN, EventState.UNKNOWN)


class Event(models.Model):
    """Something that a rule found. At most one is ongoing for a rule, an entity and a subject; repeats raise its ``count``.

    ``entity`` is a GPU's id, ``host/slot`` for a slot where no GPU was ever seen, a host's name, a source's name, or empty for
    the fleet. ``subject`` distinguishes events of one rule and entity: an XID, a metric's name. The place (``hostname``, ``slot``,
    ``model_name``, ``namespace``, ``pod``) is that of the opening.
    """

    rule = models.CharField(max_length=64)
    entity_kind = models.CharField(max_length=16, choices=EntityKind.choices)
    entity = models.CharField(max_length=320, blank=True)
    subject = models.CharField(max_length=128, blank=True)
    severity = models.CharField(max_length=16, choices=Severity.choices)
    state = models.CharField(max_length=16, choices=EventState.choices, default=EventState.OPEN)
    hostname = models.CharField(max_length=255, blank=True, db_index=True)
    slot = models.IntegerField(null=True, blank=True)
    model_name = models.CharField(max_length=128, blank=True)
    namespace = models.CharField(max_length=255, blank=True)
    pod = models.CharField(max_length=255, blank=True)
    opened = models.DateTimeField(db_index=True)
    last_seen = models.DateTimeField(help_text="when the condition last held; up to a minute behind while it is open")
    closed = models.DateTimeField(null=True, blank=True)
    count = models.PositiveIntegerField(default=1, help_text="how often it happened")
    summary = models.CharField(max_length=512, help_text="one sentence with the figures")
    details = models.JSONField(default=dict, blank=True, help_text="the figures by name")
    action = models.CharField(
        max_length=32, blank=True, help_text="what to do, as a word of health.rules.model.ACTIONS"
    )
    quiet = models.BooleanField(default=False, help_text="its rule only stores: nobody is notified")
    acknowledged = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.CharField(max_length=150, blank=True)
    resolved_by = models.CharField(max_length=150, blank=True, help_text="who closed it; empty: its rule did")

    class Meta:
        ordering = ("-opened", "-pk")
        constraints = (
            models.UniqueConstraint(
                fields=("rule", "entity_kind", "entity", "subject"),
                condition=~Q(state="closed"),
                name="one_ongoing_event",
            ),
            models.UniqueConstraint(
                fields=("rule", "entity_kind", "entity", "subject", "opened"), name="one_event_per_opening"
            ),
        )
        indexes = (
            models.Index(fields=("state", "closed", "severity"), name="event_by_end"),
            models.Index(fields=("entity", "opened"), name="event_by_entity"),
            models.Index(fields=("rule", "opened"), name="event_by_rule"),
        )

    def __str__(self) -> str:
        return f"{self.rule} on {self.entity or 'the fleet'}"


class TransitionKind(models.TextChoices):
    """What happened to an event. The first six come from the engine (health.engine.events.Change), the others from people."""

    OPENED = "opened"
    REPEATED = "repeated"
    RAISED = "raised", "raised in severity"
    LOST = "lost", "nothing heard"
    REGAINED = "regained", "heard again"
    CLOSED = "closed"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved", "resolved by a person"
    NOTED = "noted"


class EventTransition(models.Model):
    """A step in an event's life: ``at`` is the readings' time, or a person's; ``recorded`` is when it was written."""

    event = models.ForeignKey(Event, on_delete=models.CASCADE, related_name="transitions")
    kind = models.CharField(max_length=16, choices=TransitionKind.choices)
    at = models.DateTimeField()
    recorded = models.DateTimeField()
    severity = models.CharField(max_length=16, choices=Severity.choices, blank=True)
    text = models.CharField(max_length=512, blank=True, help_text="the figures or the reason, in words")
    user = models.CharField(max_length=150, blank=True)
    note = models.TextField(blank=True)

    class Meta:
        ordering = ("at", "pk")

    def __str__(self) -> str:
        return f"{self.kind} at {self.at:%Y-%m-%d %H:%M:%S}"


class Resolution(models.Model):
    """A person resolved an event. ``watch`` reads the row in its next transaction, resets the rule there and deletes the row."""

    rule = models.CharField(max_length=64)
    entity_kind = models.CharField(max_length=16, choices=EntityKind.choices)
    entity = models.CharField(max_length=320, blank=True)
    subject = models.CharField(max_length=128, blank=True)

    def __str__(self) -> str:
        return f"{self.rule} on {self.entity or 'the fleet'}"


class Mute(models.Model):
    """Nobody is notified of events that all given fields fit, until it expires. An empty field fits everything."""

    rule = models.CharField(max_length=64, blank=True)
    hostname = models.CharField("host", max_length=255, blank=True)
    gpu = models.CharField("GPU", max_length=200, blank=True)
    tag = models.CharField(max_length=64, blank=True, help_text="the name of a tag of hosts or GPUs, as rack")
    tag_value = models.CharField(max_length=255, blank=True)
    starts = models.DateTimeField()
    expires = models.DateTimeField(db_index=True)
    created_by = models.CharField(max_length=150, blank=True, editable=False)
    note = models.CharField(max_length=512, blank=True)

    class Meta:
        ordering = ("-expires",)

    def __str__(self) -> str:
        scope = [
            text for text in (self.rule, self.hostname, self.gpu, self.tag and f"{self.tag}={self.tag_value}") if text
        ]
        return " · ".join(scope) or "everything"


class WatchState(models.Model):
    """The one row (pk 1) with everything that ``watch`` resumes from. ``log``, ``offset`` and ``c32`` name the last message judged.

    Only the holder of the lease writes it, and each write says ``holder`` in its condition, so that one who lost the lease
    cannot overwrite what its successor wrote.
    """

    holder = models.CharField(max_length=128, blank=True, default="")
    lease_until = models.DateTimeField(null=True, blank=True)
    log = models.CharField(max_length=64, blank=True, default="")
    offset = models.BigIntegerField(default=-1)
    c32 = models.CharField(max_length=16, blank=True, default="")
    judged = models.BigIntegerField(default=0, help_text="readings judged so far")
    updated = models.DateTimeField(null=True, blank=True)
    engine = models.BinaryField(default=b"")
    usage = models.BinaryField(default=b"")

    def __str__(self) -> str:
        return f"up to message {self.offset} of log {self.log}"


class UsagePeriod(models.Model):
    """What the GPUs did in one hour or, once folded, one day, packed (see health.usage.packing)."""

    start = models.DateTimeField()
    hours = models.PositiveSmallIntegerField(help_text="its length: 1 or 24")
    data = models.BinaryField()

    class Meta:
        ordering = ("start",)
        constraints = (models.UniqueConstraint(fields=("start", "hours"), name="one_usage_row_per_period"),)

    def __str__(self) -> str:
        return f"{self.hours} h from {self.start:%Y-%m-%d %H:%M}"


class NoticeKind(models.TextChoices):
    """Why somebody hears of an event."""

    OPENED = "opened"
    RAISED = "raised", "raised in severity"
    CLOSED = "closed"
    RESOLVED = "resolved", "resolved by a person"
    REMINDER = "reminder", "still open"


class Notice(models.Model):
    """A step of an event that someone has yet to hear of. ``watch`` writes it with the event, and the notifier sends it.

    ``channel`` names a way out (health.notify.channels). ``key`` is the same however often it is sent, and so is ``message``, the
    key of the message that it goes out in, so that receivers recognise a repeat. ``sent``: when it was dealt with, as ``outcome`` says.
    """

    event = models.ForeignKey(Event, on_delete=models.CASCADE, related_name="notices")
    kind = models.CharField(max_length=16, choices=NoticeKind.choices)
    channel = models.CharField(max_length=64)
    key = models.CharField(max_length=64)
    created = models.DateTimeField()
    due = models.DateTimeField(db_index=True)
    late = models.BooleanField(default=False, help_text="it was known long after it happened: a digest is enough")
    message = models.CharField(max_length=64, blank=True, db_index=True)
    tried = models.DateTimeField(null=True, blank=True, help_text="when it was first tried")
    attempts = models.PositiveIntegerField(default=0)
    last_error = models.CharField(max_length=512, blank=True)
    sent = models.DateTimeField(null=True, blank=True, db_index=True)
    outcome = models.CharField(max_length=32, blank=True, help_text="sent, muted, maintenance, given up …")

    class Meta:
        ordering = ("pk",)
        constraints = (models.UniqueConstraint(fields=("key", "channel"), name="one_notice_per_step_and_channel"),)

    def __str__(self) -> str:
        return f"{self.kind} of event {self.event_id} by {self.channel}"
