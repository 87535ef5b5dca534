"""Health in Django's admin: events can be acknowledged, resolved and muted, notices sent again; nothing else is written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar, NamedTuple, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.widgets import AdminSplitDateTime
from django.db.models import Case, IntegerField, Model, QuerySet, Value, When
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from health.actions import MOST_NOTE, acknowledge_all, mute_all, resolve_all, send_again
from health.models import ONGOING, Event, EventState, Mute, Notice, WatchState
from health.muting import MuteError, Muting, check_length, check_room, check_scope, end_mute, mutes_changed, muting_now
from health.queries import MARKS
from health.rule_table import rules_now
from inventory.admin import UNKNOWN, ReadOnlyAdmin, table

MOST_ACTED_ON = 10_000
MOST_LISTED = 200
MOST_STEPS = 200
_HOUR = timedelta(hours=1)


class NoteForm(forms.Form):
    """Asks why."""

    note = forms.CharField(
        required=False,
        max_length=MOST_NOTE,
        widget=forms.Textarea(attrs={"rows": 3, "cols": 60}),
        help_text="why; it is kept with the event",
    )


class MuteNoteForm(forms.Form):
    """Asks why, for a mute."""

    note = forms.CharField(required=False, max_length=512, widget=forms.TextInput(attrs={"class": "vTextField"}))


class OngoingFilter(admin.SimpleListFilter):
    """By state; the first choice is what is not over."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, str]]:
        return [("ongoing", "Open or unknown"), *((state.value, str(state.label)) for state in EventState)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Event]) -> QuerySet[Event]:
        if self.value() is None:
            return queryset
        return queryset.filter(state__in=ONGOING if self.value() == "ongoing" else (self.value(),))


class RuleFilter(admin.SimpleListFilter):
    """By rule: those of the table, without asking which have events."""

    title = "rule"
    parameter_name = "rule"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, str]]:
        return [(name, rule.title) for name, rule in sorted(rules_now().items(), key=lambda each: each[1].title)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if self.value() is None else queryset.filter(rule=self.value())


class EventAction(NamedTuple):
    """What can be done to many events at once: the word on the button, and for a mute how long it lasts."""

    button: str
    mute_hours: int = 0


ACTIONS = {
    "acknowledge_events": EventAction("Acknowledge"),
    "resolve_events": EventAction("Resolve"),
    "mute_1h": EventAction("Mute for 1 hour", 1),
    "mute_8h": EventAction("Mute for 8 hours", 8),
    "mute_7d": EventAction("Mute for 7 days", 7 * 24),
}


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    """What the rules found."""

    actions: Sequence[str] | None = tuple(ACTIONS)
    list_display = (
        "opened",
        "shown_severity",
        "state",
        "rule",
        "hostname",
        "slot",
        "about",
        "summary",
        "count",
        "acknowledged_by",
        "silence",
    )
    list_filter = (OngoingFilter, "severity", RuleFilter, ("acknowledged", admin.EmptyFieldListFilter), "quiet")
    search_fields = ("hostname", "entity", "summary", "pod")
    search_help_text = "host, GPU, figures or pod"
    fieldsets = (
        (None, {"fields": ("title", "shown_severity", "state", "summary", "action_text", "silence")}),
        (
            "Where",
            {"fields": ("entity_kind", "entity", "hostname", "slot", "model_name", "namespace", "pod", "subject")},
        ),
        ("When", {"fields": ("opened", "last_seen", "closed", "count")}),
        ("Who", {"fields": ("acknowledged", "acknowledged_by", "resolved_by")}),
        ("Steps", {"fields": ("steps", "figures")}),
    )

    def view_on_site(self, event: Event) -> str | None:
        try:
            return reverse("dashboard:event", args=(event.pk,))
        except NoReverseMatch:
            return None

    def has_act_permission(self, request: HttpRequest) -> bool:
        """Who may acknowledge and resolve."""
        return request.user.has_perm("health.change_event")

    def has_mute_permission(self, request: HttpRequest) -> bool:
        """Who may mute."""
        return request.user.has_perm("health.add_mute")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        rank = Case(
            *(When(severity=severity, then=Value(mark)) for severity, mark in MARKS.items()),
            default=Value(len(MARKS) + 1),
            output_field=IntegerField(),
        )
        return cast("QuerySet[Event]", super().get_queryset(request).annotate(severity_rank=rank))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        self._keep_muting(request)
        return super().changelist_view(request, extra_context)

    def changeform_view(self, request: HttpRequest, *args: Any, **options: Any) -> Any:
        self._keep_muting(request)
        return super().changeform_view(request, *args, **options)

    def _keep_muting(self, request: HttpRequest) -> None:
        """A column has no request. What it needs is as good for another one: it is a second old at most."""
        self._muting: Muting = muting_now()

    @admin.display(description="severity", ordering="severity_rank")
    def shown_severity(self, event: Event) -> SafeString:
        return format_html('<span class="severity-{}">{}</span>', event.severity, event.severity)

    @admin.display(description="about", ordering="entity")
    def about(self, event: Event) -> str:
        return event.entity or "the fleet"

    @admin.display(description="muted")
    def silence(self, event: Event) -> str:
        found = None if event.state == EventState.CLOSED else self._muting.silence_of(event)
        if found is None:
            return UNKNOWN
        return "in maintenance" if found.until is None else f"until {found.until:%Y-%m-%d %H:%M} UTC"

    @admin.display
    def title(self, event: Event) -> str:
        rule = rules_now().get(event.rule)
        return event.rule if rule is None else f"{rule.title} ({rule.name})"

    @admin.display(description="what to do")
    def action_text(self, event: Event) -> str:
        rule = rules_now().get(event.rule)
        return UNKNOWN if rule is None else rule.action_text

    @admin.display
    def steps(self, event: Event) -> SafeString | str:
        newest = list(event.transitions.order_by("-at", "-pk")[:MOST_STEPS])
        rows = [
            (
                f"{step.at:%Y-%m-%d %H:%M:%S}",
                step.get_kind_display(),
                step.severity or UNKNOWN,
                step.text or UNKNOWN,
                step.user or UNKNOWN,
                step.note or UNKNOWN,
            )
            for step in reversed(newest)
        ]
        return table(("Time, UTC", "What", "Severity", "Figures", "Who", "Note"), rows)

    @admin.display
    def figures(self, event: Event) -> SafeString | str:
        return table(("Name", "Value"), sorted(event.details.items()))

    @admin.action(description="Acknowledge selected events", permissions=["act"])
    def acknowledge_events(self, request: HttpRequest, queryset: QuerySet[Event]) -> HttpResponse | None:
        return self._act(request, queryset, "acknowledge_events")

    @admin.action(description="Resolve selected events", permissions=["act"])
    def resolve_events(self, request: HttpRequest, queryset: QuerySet[Event]) -> HttpResponse | None:
        return self._act(request, queryset, "resolve_events")

    @admin.action(description="Mute selected events for 1 hour", permissions=["mute"])
    def mute_1h(self, request: HttpRequest, queryset: QuerySet[Event]) -> HttpResponse | None:
        return self._act(request, queryset, "mute_1h")

    @admin.action(description="Mute selected events for 8 hours", permissions=["mute"])
    def mute_8h(self, request: HttpRequest, queryset: QuerySet[Event]) -> HttpResponse | None:
        return self._act(request, queryset, "mute_8h")

    @admin.action(description="Mute selected events for 7 days", permissions=["mute"])
    def mute_7d(self, request: HttpRequest, queryset: QuerySet[Event]) -> HttpResponse | None:
        return self._act(request, queryset, "mute_7d")

    def _act(self, request: HttpRequest, queryset: QuerySet[Event], name: str) -> HttpResponse | None:
        """Asks why on a page of its own, and then does it."""
        events = list(queryset.filter(state__in=ONGOING).order_by("-opened", "-pk")[: MOST_ACTED_ON + 1])
        if len(events) > MOST_ACTED_ON:
            self.message_user(request, f"Select at most {MOST_ACTED_ON:,} events.", messages.ERROR)
            return None
        if not events:
            self.message_user(request, "All of the selected are closed.", messages.WARNING)
            return None
        hours = ACTIONS[name].mute_hours
        form_class = MuteNoteForm if hours else NoteForm
        form = form_class(request.POST if "apply" in request.POST else None)
        if not (form.is_bound and form.is_valid()):
            return self._asking(request, events, name, form)
        user, user_id, note = request.user.get_username(), cast(int, request.user.pk), form.cleaned_data["note"]
        if hours:
            try:
                made = mute_all(events, timezone.now() + hours * _HOUR, user, note, user_id=user_id)
            except MuteError as error:
                self.message_user(request, f"Nothing is muted: {error}.", messages.ERROR)
                return None
            self.message_user(request, f"Added {len(made)} mutes for {len(events)} events.", messages.SUCCESS)
            return None
        action = acknowledge_all if name == "acknowledge_events" else resolve_all
        count = action([event.pk for event in events], user, note, user_id=user_id)
        self.message_user(request, f"Changed {count.changed} of {len(events)} events.", messages.SUCCESS)
        return None

    def _asking(self, request: HttpRequest, events: Sequence[Event], name: str, form: forms.Form) -> HttpResponse:
        select_across = request.POST.get("select_across") == "1"
        selected = request.POST.getlist(ACTION_CHECKBOX_NAME)
        context = {
            **self.admin_site.each_context(request),
            "title": dict(self.get_action_choices(request, []))[name],
            "opts": self.opts,
            "media": self.media,
            "form": form,
            "action": name,
            "button": ACTIONS[name].button,
            # Of a whole list one is enough: it is selected by the list's own filters again.
            "selected": selected[:1] if select_across else selected,
            "select_across": int(select_across),
            "checkbox_name": ACTION_CHECKBOX_NAME,
            "events": events[:MOST_LISTED],
            "total": len(events),
            "more": max(0, len(events) - MOST_LISTED),
        }
        return TemplateResponse(request, "admin/health/act_on_selected.html", context)


class MuteForm(forms.ModelForm):  # type: ignore[type-arg]  # of mutes
    """A new mute. It counts from now on."""

    rule = forms.ChoiceField(required=False, help_text="empty: every rule")
    expires = forms.SplitDateTimeField(
        widget=AdminSplitDateTime,
        initial=lambda: (timezone.now() + 8 * _HOUR).replace(second=0, microsecond=0),
        help_text="UTC",
    )

    class Meta:
        model = Mute
        fields = ("rule", "hostname", "gpu", "tag", "tag_value", "expires", "note")
        help_texts: ClassVar = {
            "hostname": "a host of the inventory; empty: every host",
            "gpu": "a GPU's id, also for its MIG instances, or host/slot; empty: every GPU",
        }

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        names = [(name, f"{rule.title} ({name})") for name, rule in rules_now().items()]
        self.fields["rule"].choices = [("", UNKNOWN), *names]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        """Adds what is wrong to the field that it is about."""
        given = super().clean() or {}
        self.instance.starts = timezone.now()
        if not self.errors:
            try:
                check_scope(Mute(**{name: given[name] for name in ("rule", "hostname", "gpu", "tag", "tag_value")}))
                check_length(self.instance.starts, given["expires"])
                check_room()
            except MuteError as error:
                self.add_error(error.field, str(error))
        return given


class ActiveFilter(admin.SimpleListFilter):
    """Mutes that count, or those that have ended."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, str]]:
        return [("active", "Active"), ("ended", "Ended")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Mute]) -> QuerySet[Mute]:
        if self.value() == "active":
            return queryset.filter(expires__gt=timezone.now())
        return queryset.filter(expires__lte=timezone.now()) if self.value() else queryset


@admin.register(Mute)
class MuteAdmin(ReadOnlyAdmin):
    """Of what nobody is notified. A mute is added and ended, and never changed: who reads the history sees what counted."""

    form = MuteForm
    actions: Sequence[str] | None = ("end_mutes",)
    list_display = ("scope", "starts", "expires", "created_by", "note")
    list_filter = (ActiveFilter, RuleFilter)
    search_fields = ("hostname", "gpu", "tag_value", "created_by", "note")
    search_help_text = "host, GPU, value of a tag, who made it or why"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return admin.ModelAdmin.has_add_permission(self, request)

    def has_end_permission(self, request: HttpRequest) -> bool:
        """Who may end one."""
        return request.user.has_perm("health.change_mute")

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        fields = super().get_fields(request, obj)
        return fields if obj is None else ("scope", "starts", "expires", "created_by", "note")

    def save_model(self, request: HttpRequest, obj: Mute, form: Any, change: bool) -> None:
        obj.created_by = request.user.get_username()
        super().save_model(request, obj, form, change)
        mutes_changed()

    @admin.display(description="covers")
    def scope(self, mute: Mute) -> str:
        return str(mute)

    @admin.action(description="End selected mutes", permissions=["end"])
    def end_mutes(self, request: HttpRequest, queryset: QuerySet[Mute]) -> None:
        active = list(queryset.filter(expires__gt=timezone.now()).order_by("pk")[:MOST_LISTED])
        for mute in active:
            end_mute(mute, request.user.get_username(), user_id=cast(int, request.user.pk))
        self.message_user(request, f"Ended {len(active)} mutes.", messages.SUCCESS)


@admin.register(WatchState)
class WatchStateAdmin(ReadOnlyAdmin):
    """What has been judged so far, and who does it."""

    list_display = ("holder", "lease_until", "judged", "offset", "updated")
    fields = ("holder", "lease_until", "judged", "log", "offset", "updated")

    def get_queryset(self, request: HttpRequest) -> QuerySet[WatchState]:
        """Without the states of engine and usage, which may be many MiB."""
        return cast("QuerySet[WatchState]", super().get_queryset(request).defer("engine", "usage"))


@admin.register(Notice)
class NoticeAdmin(ReadOnlyAdmin):
    """Who was notified of what, or is yet to be."""

    actions: Sequence[str] | None = ("send_notices_again",)
    list_display = ("created", "kind", "event_page", "channel", "sent", "outcome", "attempts", "last_error")
    list_display_links = None
    list_filter = (("sent", admin.EmptyFieldListFilter), "kind", "channel")
    list_select_related = ("event",)
    search_fields = ("event__hostname", "event__entity", "last_error")
    search_help_text = "host, GPU or error"

    def has_send_permission(self, request: HttpRequest) -> bool:
        """Who may send again."""
        return request.user.has_perm("health.change_notice")

    @admin.display(description="event", ordering="event")
    def event_page(self, notice: Notice) -> SafeString:
        url = reverse("admin:health_event_change", args=(notice.event_id,))
        return format_html('<a href="{}">{}</a>', url, notice.event)

    @admin.action(description="Send selected notices again", permissions=["send"])
    def send_notices_again(self, request: HttpRequest, queryset: QuerySet[Notice]) -> None:
        keys = list(queryset.order_by("pk").values_list("pk", flat=True)[:MOST_ACTED_ON])
        self.message_user(request, f"{send_again(keys)} notices will be sent again.", messages.SUCCESS)
