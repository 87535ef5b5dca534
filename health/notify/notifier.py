"""Sends the notices that are due, beside ``watch``: one thread for the database, and one for each message on its way.

A message's notices are marked with its key before it is sent and as sent afterwards, so that after a kill in between it goes
out once more, with the same key and the same notices.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from django.conf import settings
from django.db import DatabaseError, InterfaceError, transaction
from django.db.models import Exists, F, Max, OuterRef, Q
from django.db.models.functions import Coalesce
from django.utils import timezone

from health.models import ONGOING, Event, EventState, EventTransition, Notice, NoticeKind, Severity, TransitionKind
from health.muting import Muting, load_muting
from health.notify.batching import Batch, Group, budget_of, join_by_entity, next_batch
from health.notify.channels import Channel, configured_channels, grouping_of, needs_tags
from health.notify.delivery import open_plugs
from health.notify.errors import DeliveryError
from health.notify.messages import ChannelMessage, Wording, compose
from health.notify.outbox import LATE, LATEST, message_key, notice_key, post
from health.notify.retrying import retry_wait
from health.notify.tagging import tags_by_event
from health.notify.threads import SENDING, STOPPING_TAKES, Turns, in_thread, repeat
from health.rule_table import rules_now

logger = logging.getLogger(__name__)

# Seconds, unless they say otherwise.
TICK = 1.0
SENDING_TAKES = 60.0  # longer than this a service hangs
GIVE_UP = timedelta(days=3)
KEPT = timedelta(days=7)
# How often it is looked whether what is muted still is.
_MUTED_FOR = timedelta(seconds=60)
_SWEEP, _TIDY = 5.0, 3600.0
_MOST_LOADED = 5_000
_AT_ONCE = 500
# A person resolves an event in the web service, which sends nothing: found here, and posted.
_RESOLVED_WITHIN = timedelta(hours=1)


class ChannelOutlet(Protocol):
    """What sends the messages of one channel."""

    channel: Channel

    def send(self, message: ChannelMessage) -> None:
        """Send it. Raises DeliveryError."""


class Outcome:
    """What became of a notice."""

    SENT = "sent"
    MUTED = "muted"
    MAINTENANCE = "maintenance"
    GIVEN_UP = "given up"
    NOT_NEEDED = "not needed"
    NO_CHANNEL = "no such channel"


@dataclass
class _MessageOnItsWay:
    """A message on its way."""

    key: str
    began: float = field(default_factory=time.monotonic)
    is_over: bool = False
    error: DeliveryError | None = None
    is_hanging: bool = False


class _ChannelQueue:
    """One channel: at most one message on its way, and a pause after each that failed."""

    def __init__(self, outlet: ChannelOutlet) -> None:
        self.outlet = outlet
        self.name = outlet.channel.name
        self.flight: _MessageOnItsWay | None = None
        self.not_before: datetime | None = None
        self.failures = 0


class Notifier:
    """The notices of this database and the channels that they go out by. Only one at a time may run: that of the lease's holder."""

    def __init__(self, outlets: Sequence[ChannelOutlet], wording: Wording, turns: Turns | None = None) -> None:
        self._queues = [_ChannelQueue(outlet) for outlet in outlets]
        self._wording = wording
        self._turns = turns or Turns()
        self._next_sweep = self._next_tidying = 0.0

    @property
    def is_sending(self) -> bool:
        """Whether a message is on its way."""
        return any(queue.flight for queue in self._queues)

    def step(self, now: datetime | None = None) -> None:
        """Note what became of the messages on their way, and send off what is due. Raises DatabaseError."""
        moment = now or timezone.now()
        self.settle(moment)
        clock = time.monotonic()
        if clock >= self._next_sweep:
            self._next_sweep = clock + _SWEEP
            self.sweep(moment)
        if clock >= self._next_tidying:
            self._next_tidying = clock + _TIDY
            self.tidy(moment)
        waiting = Notice.objects.filter(sent=None, due__lte=moment).order_by()
        busy = set(waiting.values_list("channel", flat=True).distinct())
        muting: Muting | None = None
        for queue in self._queues:
            if queue.name in busy and queue.flight is None and (queue.not_before is None or queue.not_before <= moment):
                muting = muting or load_muting(moment)
                self._send_next(queue, muting, moment)

    def settle(self, now: datetime) -> None:
        """Note what became of the messages that are no longer on their way. Raises DatabaseError, and then it is noted later."""
        for queue in self._queues:
            flight = queue.flight
            if flight is None:
                continue
            if flight.is_over:
                if flight.error is None:
                    self._sent(queue, flight.key, now)
                else:
                    self._failed(queue, flight.key, flight.error, now)
                queue.flight = None
            elif not flight.is_hanging and time.monotonic() - flight.began > SENDING_TAKES:
                flight.is_hanging = True
                logger.warning("%s: no answer for %d s; waiting for it", queue.name, SENDING_TAKES)

    def sweep(self, now: datetime) -> None:
        """Post what no ``watch`` does: events that people resolved, and reminders. Raises DatabaseError."""
        told = Notice.objects.filter(event=OuterRef("event"), outcome=Outcome.SENT)
        newest = EventTransition.objects.aggregate(newest=Max("pk"))["newest"] or 0
        resolved = EventTransition.objects.filter(
            Exists(told),
            ~Exists(Notice.objects.filter(event=OuterRef("event"), kind__in=(NoticeKind.CLOSED, NoticeKind.RESOLVED))),
            pk__gt=newest - LATEST,  # there is no index of times
            kind=TransitionKind.RESOLVED,
            recorded__gte=now - _RESOLVED_WITHIN,
        )
        steps = [(step.event, step) for step in resolved.select_related("event").order_by("pk")[:_AT_ONCE]]
        if steps:
            post(steps, now)
        if settings.NOTIFY_REPEAT:
            self._remind(timedelta(seconds=settings.NOTIFY_REPEAT), now)

    def tidy(self, now: datetime) -> None:
        """Delete what was dealt with a while ago and is over, and give up what no channel is there for. Raises DatabaseError."""
        names = [queue.name for queue in self._queues]
        gone = Notice.objects.filter(sent=None, created__lt=now - GIVE_UP).exclude(channel__in=names)
        count = gone.update(sent=now, outcome=Outcome.NO_CHANNEL)
        if count:
            logger.error("%d notices given up: their channels are not in NOTIFY_URLS any more", count)
        old = Notice.objects.filter(sent__lt=now - KEPT, event__state=EventState.CLOSED)
        keys = list(old.order_by("pk").values_list("pk", flat=True)[:50_000])
        for start in range(0, len(keys), _AT_ONCE):
            Notice.objects.filter(pk__in=keys[start : start + _AT_ONCE]).delete()

    def _remind(self, every: timedelta, now: datetime) -> None:
        for queue in self._queues:
            mine = Notice.objects.filter(event=OuterRef("pk"), channel=queue.name)
            events = (
                Event.objects.filter(
                    ~Exists(mine.filter(sent=None)),
                    severity=Severity.CRITICAL,
                    state__in=ONGOING,
                    quiet=False,
                    acknowledged=None,
                )
                .annotate(
                    last=Max("notices__sent", filter=Q(notices__channel=queue.name, notices__outcome=Outcome.SENT))
                )
                .filter(last__lte=now - every)
                .order_by("pk")[:_AT_ONCE]
            )
            rows = [
                Notice(
                    event=event,
                    kind=NoticeKind.REMINDER,
                    channel=queue.name,
                    key=notice_key(event, NoticeKind.REMINDER, f"{now - every:%Y-%m-%dT%H:%M:%S}"),
                    created=now,
                    due=now,
                )
                for event in events
            ]
            Notice.objects.bulk_create(rows, ignore_conflicts=True, batch_size=_AT_ONCE)

    def _send_next(self, queue: _ChannelQueue, muting: Muting, now: datetime) -> None:
        waiting = Notice.objects.filter(channel=queue.name, sent=None).select_related("event")
        loaded = list(waiting.order_by("due", "pk")[:_MOST_LOADED])
        again = self._begun(loaded, now)
        # After a failure another message has its turn, so that one that is never taken does not stop those behind it.
        if (again is not None and not queue.failures % 2) or (
            not self._send_fresh(queue, [each for each in loaded if not each.message], muting, now)
            and again is not None
        ):
            self._send(queue, again, again.notices[0].message, now)

    def _send_fresh(self, queue: _ChannelQueue, notices: Sequence[Notice], muting: Muting, now: datetime) -> bool:
        """Send what is due of those that were not tried yet; returns whether anything is."""
        fresh = self._wanted(queue, notices, muting, now)
        if not fresh:
            return False
        names = settings.NOTIFY_GROUP_BY
        events = {notice.event_id: notice.event for notice in fresh}
        tags = tags_by_event(events.values()) if needs_tags(names) else {}

        def grouped(by: Sequence[str]) -> dict[int, Group]:
            return {key: grouping_of(event, by, tags.get(key, {})) for key, event in events.items()}

        groups = join_by_entity(grouped(names), events, grouped([name for name in names if name != "rule"]))
        sent = Notice.objects.filter(channel=queue.name, outcome=Outcome.SENT, sent__gt=now - timedelta(hours=1))
        budget = budget_of(settings.NOTIFY_MOST, sent.order_by().values("message").distinct().count())
        batch = next_batch(fresh, groups, timedelta(seconds=settings.NOTIFY_WAIT), budget, now)
        if batch is None:
            return False
        self._send(queue, batch, message_key(batch.notices), now)
        return True

    def _begun(self, notices: Sequence[Notice], now: datetime) -> Batch | None:
        """A message that was begun before: it goes out again as it was.

        Messages that are late by now are taken apart, and their notices go into a digest. Not so those of which it is not known
        whether they were sent: a digest would be a repeat that nobody can tell by its key.
        """
        by_message: dict[str, list[Notice]] = {}
        for notice in notices:
            if notice.message:
                by_message.setdefault(notice.message, []).append(notice)
        late = LATE + timedelta(seconds=settings.NOTIFY_WAIT)
        overdue = [found for found in by_message.values() if _failed_for(found, late, now)]
        if overdue and len(overdue) + any(not notice.message for notice in notices) > 1:
            dissolved = [notice for found in overdue for notice in found]
            _each_part(dissolved, lambda rows: rows.update(message="", late=True))
            for notice in dissolved:
                notice.message, notice.late = "", True
        ready = [
            found
            for found in by_message.values()
            if found[0].message and min(notice.due for notice in found) <= now
        ]  # fmt: skip
        if not ready:
            return None
        found = min(ready, key=lambda each: (each[0].attempts, each[0].pk))
        events = [notice.event for notice in found]
        is_one_fault = len({event.hostname for event in events}) == 1
        return Batch(found, not is_one_fault)

    def _wanted(self, queue: _ChannelQueue, notices: Sequence[Notice], muting: Muting, now: datetime) -> list[Notice]:
        """Those that are to be sent now; the others wait for the end of a mute, or are done with."""
        heard_of = self._heard_of(queue, notices)
        wanted, waiting, done = [], dict[str, list[Notice]](), dict[str, list[Notice]]()
        silent = {notice.event_id: muting.silence_of(notice.event) for notice in notices}
        opening = {notice.event_id for notice in notices if _is_opening(notice)}
        for notice in notices:
            event, silence = notice.event, silent[notice.event_id]
            is_over = event.state == EventState.CLOSED
            if event.quiet or (notice.kind == NoticeKind.REMINDER and (is_over or event.acknowledged is not None)):
                done.setdefault(Outcome.NOT_NEEDED, []).append(notice)
            elif (
                not _is_opening(notice)
                and notice.event_id not in heard_of
                and (silence or notice.event_id not in opening)
            ):
                # Who has not heard of it need not hear that it is over.
                done.setdefault(Outcome.NOT_NEEDED, []).append(notice)
            elif silence is None:
                wanted.append(notice)
            elif is_over:
                done.setdefault(silence.reason, []).append(notice)
            else:
                waiting.setdefault(silence.reason, []).append(notice)
        for outcome, found in done.items():
            _each_part(found, lambda rows, outcome=outcome: rows.update(sent=now, outcome=outcome))
        for outcome, found in waiting.items():
            _each_part(found, lambda rows, outcome=outcome: rows.update(due=now + _MUTED_FOR, outcome=outcome))
        return wanted

    def _heard_of(self, queue: _ChannelQueue, notices: Sequence[Notice]) -> set[int]:
        """The events, of those that ended or are to be reminded of, that this channel has sent something about."""
        keys = sorted({notice.event_id for notice in notices if not _is_opening(notice)})
        found: set[int] = set()
        for start in range(0, len(keys), _AT_ONCE):
            told = Notice.objects.filter(
                Q(outcome=Outcome.SENT) | ~Q(message=""), channel=queue.name, event__in=keys[start : start + _AT_ONCE]
            )
            found.update(told.values_list("event_id", flat=True))
        return found

    def _send(self, queue: _ChannelQueue, batch: Batch, key: str, now: datetime) -> None:
        if not self._claim(batch.notices, key, now):
            return
        message = compose(batch.notices, key, self._wording, now, digest=batch.is_digest)
        queue.flight = flight = _MessageOnItsWay(key)

        def send() -> None:
            try:
                queue.outlet.send(message)
            except DeliveryError as error:
                flight.error = error
            except Exception as error:
                flight.error = DeliveryError(f"sending failed: {type(error).__name__}")
            flight.is_over = True
            self._turns.woken.set()

        threading.Thread(target=send, name=f"{SENDING}{queue.name}", daemon=True).start()

    def _claim(self, notices: Sequence[Notice], key: str, now: datetime) -> bool:
        """Mark them as on their way with this message; not if another notifier, which lost its lease, has just done so."""
        loaded = {notice.pk: (notice.attempts, notice.sent) for notice in notices}
        keys = sorted(loaded)
        with transaction.atomic():
            for start in range(0, len(keys), _AT_ONCE):
                rows = Notice.objects.filter(pk__in=keys[start : start + _AT_ONCE])
                found = rows.select_for_update().order_by("pk").values_list("pk", "attempts", "sent")
                if {pk: (attempts, sent) for pk, attempts, sent in found}.items() != {
                    pk: loaded[pk] for pk in keys[start : start + _AT_ONCE]
                }.items():
                    transaction.set_rollback(True)
                    return False
                rows.update(
                    message=key,
                    tried=Coalesce("tried", now),
                    attempts=F("attempts") + 1,
                    outcome="",
                    last_error="",
                )
        return True

    def _sent(self, queue: _ChannelQueue, key: str, now: datetime) -> None:
        rows = Notice.objects.filter(channel=queue.name, message=key, sent=None)
        rows.update(sent=now, outcome=Outcome.SENT, last_error="")
        if queue.failures:
            logger.info("%s: messages get through again after %d attempts", queue.name, queue.failures)
        queue.failures, queue.not_before = 0, None

    def _failed(self, queue: _ChannelQueue, key: str, error: DeliveryError, now: datetime) -> None:
        rows = Notice.objects.filter(channel=queue.name, message=key, sent=None)
        wait = max(retry_wait(queue.failures), error.retry_after)
        given_up = rows.filter(tried__lt=now - GIVE_UP).update(
            sent=now, outcome=Outcome.GIVEN_UP, last_error=str(error)
        )
        if given_up:
            logger.error("%s: %d notices given up after %d days: %s", queue.name, given_up, GIVE_UP.days, error)
        if error.is_refusal:
            attempts = rows.aggregate(most=Max("attempts"))["most"] or 1
            rows.update(due=now + timedelta(seconds=retry_wait(attempts - 1)), last_error=str(error)[:512])
            if attempts == 1:
                logger.warning("%s: a message was refused: %s; trying again, after others", queue.name, error)
            return
        rows.update(due=now + timedelta(seconds=wait), last_error=str(error)[:512])
        if not queue.failures:
            logger.warning("%s: a message was not sent: %s; trying again", queue.name, error)
        queue.failures += 1
        queue.not_before = now + timedelta(seconds=wait)


def _failed_for(notices: Sequence[Notice], long: timedelta, now: datetime) -> bool:
    return all(notice.last_error for notice in notices) and any(now - notice.created > long for notice in notices)


def _is_opening(notice: Notice) -> bool:
    return notice.kind in {NoticeKind.OPENED, NoticeKind.RAISED}


def _each_part(notices: Sequence[Notice], change: Callable[..., int]) -> None:
    """Change the rows of these notices, some hundreds in one statement."""
    keys = [notice.pk for notice in notices]
    for start in range(0, len(keys), _AT_ONCE):
        change(Notice.objects.filter(pk__in=keys[start : start + _AT_ONCE]))


def open_notifier(turns: Turns | None = None) -> Notifier | None:
    """The notifier of the settings; None without NOTIFY_URLS. Raises ChannelError in one line without secrets."""
    channels = configured_channels()
    if not channels:
        return None
    return Notifier(open_plugs(channels, settings.PUBLIC_URL), Wording(rules_now(), settings.PUBLIC_URL), turns)


async def run(stop: asyncio.Event) -> None:
    """Send what is due until ``stop`` is set. Returns soon after that, whatever hangs. Raises ChannelError at its start."""
    turns = Turns()
    notifier = open_notifier(turns)
    if notifier is None:
        await stop.wait()
        return

    def step() -> float:
        notifier.step()
        return TICK

    def work() -> None:
        repeat(turns, "notifications", step)
        deadline = time.monotonic() + STOPPING_TAKES / 2
        try:
            while notifier.is_sending and time.monotonic() < deadline:
                turns.wait(0.1)
                notifier.settle(timezone.now())
        except (DatabaseError, InterfaceError):
            logger.warning("the database is away: what is on its way may be sent once more after the next start")

    await in_thread(stop, "notifier", turns, work)
