"""The inventory in Django's admin: rows can be searched, what people note can be edited, old GPUs and hosts removed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from math import isnan
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.db.models import BooleanField, Count, ExpressionWrapper, Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, reverse
from django.utils.formats import localize
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timezone import localtime

from inventory.asset_admin import AssetEditing, AssetForm, HostForm, OwnerFilter, TagFilter
from inventory.lookups import CheapLookups
from inventory.models import GPU, AssetState, CollectorStatus, Host, Placement, Residence
from inventory.newest import newest_by_host
from inventory.queries import Ages, ages_now, in_state, latest_readings
from inventory.removal import gpus_of, remove_gpus, remove_hosts, with_instances
from readings.catalogue import unit_of
from readings.checks import Kinds
from readings.mig import MEMORY_FREE, MEMORY_RESERVED, MEMORY_TOTAL, MEMORY_USED, POWER, TEMPERATURE, UTILISATION
from readings.times import format_time

UNKNOWN = "–"


def shown(value: float | None, unit: str, digits: int = 0) -> str:
    """``1,234.5 W``; the dash for None."""
    return UNKNOWN if value is None else f"{value:,.{digits}f} {unit}".rstrip()


def shown_exactly(value: float) -> str:
    """All digits, with thousands separators and without ``.0``."""
    return f"{value:,}".removesuffix(".0")


def attach_newest(gpus: Iterable[GPU]) -> None:
    """Gives each row its newest values, which ``newest_value`` returns. Their hosts must be loaded."""
    rows = list(gpus)
    newest = newest_by_host({row.host.name if row.host else "" for row in rows})
    values = {
        gpu_id: dict(zip(host.metric_names, each, strict=True))
        for host in newest.values()
        for gpu_id, each in zip(host.gpu_ids, host.values.tolist(), strict=True)
    }
    for row in rows:
        row.newest_values = values.get(row.pk, {})  # type: ignore[attr-defined]


def newest_value(gpu: GPU, metric_name: str) -> float | None:
    """The newest value of a metric, or None: unknown is never 0. See ``attach_newest``."""
    value: float | None = gpu.newest_values.get(metric_name)  # type: ignore[attr-defined]
    return None if value is None or isnan(value) else value


def shown_metric(gpu: GPU, metric_name: str, digits: int = 0) -> str:
    """The newest value of a metric with its unit."""
    return shown(newest_value(gpu, metric_name), unit_of(metric_name), digits)


def shown_memory(gpu: GPU) -> str:
    """``5,120 / 81,007 MiB``: used and total. A missing total is the sum of used, free and reserved."""
    used, total = newest_value(gpu, MEMORY_USED), newest_value(gpu, MEMORY_TOTAL)
    free = newest_value(gpu, MEMORY_FREE)
    if total is None and used is not None and free is not None:
        total = used + free + (newest_value(gpu, MEMORY_RESERVED) or 0.0)
    if used is None and total is None:
        return UNKNOWN
    return f"{shown(used, '')} / {shown(total, '')} {unit_of(MEMORY_USED)}"


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> SafeString | str:
    """An HTML table with every text escaped; the dash when there are no rows."""
    cells = [(format_html_join("", "<td>{}</td>", ((cell,) for cell in row)),) for row in rows]
    if not cells:
        return UNKNOWN
    return format_html(
        "<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>",
        format_html_join("", '<th scope="col">{}</th>', ((heading,) for heading in headings)),
        format_html_join("", "<tr>{}</tr>", cells),
    )


# How many rows of history a GPU's page shows; the rest is behind a link.
MOST_HISTORY = 20
MOST_REMOVED_SHOWN = 200
# The GPUs on a host's page, and the hosts in a filter; more than that is found by search.
MOST_GPUS_SHOWN = 64
MOST_HOSTS_LISTED = 100


class ReadOnlyAdmin(CheapLookups):
    """Pages where nothing can be added, changed or deleted."""

    actions: Sequence[str] | None = None
    list_per_page = 100

    class Media:
        css: ClassVar[dict[str, tuple[str, ...]]] = {"all": ("inventory/admin.css",)}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class RemovableAdmin(ReadOnlyAdmin):
    """Pages from which rows can be removed, once a page has shown everything that goes with them."""

    actions: Sequence[str] | None = ()
    goes_with: Callable[[Iterable[Any]], list[GPU]]  # all GPUs that removing these rows removes
    remove: Callable[[Iterable[Any]], int]

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return admin.ModelAdmin.has_delete_permission(self, request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self.remove(queryset)

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        self.remove([obj])

    def get_deleted_objects(
        self, objs: Iterable[Any], request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[str]]:
        """The rows on the confirmation page. History goes too; it is counted, not listed, and needs no permission."""
        gpus = self.goes_with(objs)
        counts = {
            "GPUs": len(gpus),
            "residences": Residence.objects.filter(gpu__in=gpus).count(),
            "placements": Placement.objects.filter(gpu__in=gpus).count(),
        }
        lines = [
            f"{gpu.host or UNKNOWN} · {UNKNOWN if gpu.index is None else gpu.index} · {gpu.pk} (last seen {_shown_time(gpu.last_seen)})"
            for gpu in gpus[:MOST_REMOVED_SHOWN]
        ]
        if len(gpus) > len(lines):
            lines.append(f"… and {len(gpus) - len(lines)} more")
        return lines, counts, set(), []


class StateFilter(admin.SimpleListFilter):
    """Reporting or stale, as ``ages_now`` says."""

    title = "readings"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, str]]:
        return [("reporting", "Reporting"), ("stale", "Stale")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[GPU]) -> QuerySet[GPU]:
        return queryset.filter(Q(("stale", self.value() == "stale"))) if self.value() else queryset


class KindFilter(admin.SimpleListFilter):
    """Whole GPUs, or instances cut out of them."""

    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, str]]:
        return [("physical", "Physical GPUs"), ("instance", "MIG instances")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[GPU]) -> QuerySet[GPU]:
        if self.value() == "physical":
            return queryset.filter(mig_id="")
        return queryset.exclude(mig_id="") if self.value() else queryset


def _is_key(text: str) -> bool:
    """Whether it can be the number of a row."""
    return text.isdecimal() and len(text) < 19


class HostFilter(admin.SimpleListFilter):
    """By host, while there are few. Else a host is searched for, or its GPUs reached from its own page."""

    title = "host"
    parameter_name = "host__id__exact"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, str]]:
        hosts = list(Host.objects.values_list("pk", "name")[: MOST_HOSTS_LISTED + 1])
        if len(hosts) > MOST_HOSTS_LISTED:
            chosen = self.value() or ""
            hosts = list(Host.objects.filter(pk=chosen).values_list("pk", "name")) if _is_key(chosen) else []
        return [(str(pk), name) for pk, name in hosts]

    def queryset(self, request: HttpRequest, queryset: QuerySet[GPU]) -> QuerySet[GPU]:
        value = self.value()
        if value is None:
            return queryset
        return queryset.filter(host=int(value)) if _is_key(value) else queryset.none()


@admin.register(GPU)
class GPUAdmin(AssetEditing, RemovableAdmin):
    """GPUs and MIG instances with their newest readings."""

    form = AssetForm
    key_field = "id"
    goes_with = staticmethod(with_instances)
    remove = staticmethod(remove_gpus)

    list_display = (
        "host",
        "index",
        "short_id",
        "state",
        "utilisation",
        "memory",
        "temperature",
        "power",
        "short_model",
        "pod",
        "owner",
    )
    list_display_links = ("short_id",)
    list_filter = (
        StateFilter,
        "asset_state",
        OwnerFilter,
        TagFilter,
        KindFilter,
        "model_name",
        "driver_version",
        HostFilter,
    )
    list_select_related = ("host",)
    search_fields = ("id", "host__name", "model_name", "pod", "owner", "tag_text")
    search_help_text = "uuid, host, model, pod, owner or tag"
    fieldsets = (
        (
            None,
            {
                "fields": ("asset_state", "owner", "tags", "notes"),
                "description": "Set by people. A GPU that is in maintenance or retired, or whose host is, is never missing or stale.",
            },
        ),
        ("GPU", {"fields": ("id", "uuid", "mig_id", "mig_profile", "model_name", "driver_version", "device")}),
        ("Where", {"fields": ("host", "index", "first_seen", "last_seen", "state", "boards", "residences", "slot")}),
        ("Readings", {"fields": ("readings",)}),
        ("What runs", {"fields": ("namespace", "pod", "container", "placements")}),
        ("Labels", {"fields": ("label_table",), "classes": ("collapse",)}),
    )
    readonly_fields = ("state", "boards", "residences", "slot", "readings", "placements", "label_table")

    def view_on_site(self, gpu: GPU) -> str | None:
        return _dashboard_url("gpu", gpu.pk)

    def get_queryset(self, request: HttpRequest) -> QuerySet[GPU]:
        stale = ExpressionWrapper(in_state("stale", _ages(request)), output_field=BooleanField())
        gpus: QuerySet[GPU] = super().get_queryset(request)
        return gpus.annotate(stale=stale).select_related("host")

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changes: Any = super().get_changelist_instance(request)
        changes.result_list = list(changes.result_list)
        attach_newest(changes.result_list)
        return changes

    @admin.display(description="GPU", ordering="id")
    def short_id(self, gpu: GPU) -> SafeString:
        """The first group of the uuid: enough to distinguish GPUs, and short enough for the readings beside it."""
        prefix, _, rest = gpu.uuid.partition("-")
        short = f"{prefix}-{rest.split('-')[0]}" if rest else gpu.uuid
        return format_html(
            '<span title="{}" class="nowrap">{}</span>',
            gpu.id,
            f"{short}:{gpu.mig_id}" if gpu.mig_id else short,
        )

    @admin.display(description="model", ordering="model_name")
    def short_model(self, gpu: GPU) -> str:
        """Without the vendor, who is the same for all."""
        return gpu.model_name.removeprefix("NVIDIA ")

    @admin.display(ordering="last_seen")
    def state(self, gpu: GPU) -> SafeString:
        """Whether it reports, and what people say of it unless it is active."""
        state = "stale" if gpu.stale else "reporting"  # type: ignore[attr-defined]  # annotated above
        cell = format_html('<span title="last seen {}">{}</span>', _shown_time(gpu.last_seen), state)
        if gpu.asset_state == AssetState.ACTIVE:
            return cell
        return format_html("{}<br>{}", cell, self.shown_asset_state(gpu))

    @admin.display(description="util")
    def utilisation(self, gpu: GPU) -> str:
        return shown_metric(gpu, UTILISATION)

    @admin.display(description="memory")
    def memory(self, gpu: GPU) -> str:
        return shown_memory(gpu)

    @admin.display(description="temp")
    def temperature(self, gpu: GPU) -> str:
        return shown_metric(gpu, TEMPERATURE)

    @admin.display
    def power(self, gpu: GPU) -> str:
        return shown_metric(gpu, POWER, digits=1)

    @admin.display(description="latest readings")
    def readings(self, gpu: GPU) -> SafeString | str:
        rows = [
            (each.metric_name, shown_exactly(each.value), each.unit, format_time(each.time_ns))
            for each in latest_readings(gpu)
        ]
        return table(("Metric", "Value", "Unit", "Time"), rows)

    @admin.display(description="labels")
    def label_table(self, gpu: GPU) -> SafeString | str:
        return table(("Label", "Value"), sorted(gpu.labels.items()))

    @admin.display(description="MIG")
    def boards(self, gpu: GPU) -> SafeString | str:
        """The instances of a GPU, or the GPU of an instance."""
        others = GPU.objects.filter(uuid=gpu.uuid).exclude(pk=gpu.pk).order_by("id")
        if gpu.mig_id:
            others = others.filter(mig_id="")
        return table(
            ("GPU", "Profile"), [(_gpu_link(each), each.mig_profile or UNKNOWN) for each in others[:MOST_HISTORY]]
        )

    @admin.display(description="has sat in")
    def residences(self, gpu: GPU) -> SafeString | str:
        rows = [
            (
                _host_link(each.host),
                UNKNOWN if each.index is None else each.index,
                _shown_time(each.since),
                _shown_time(each.until),
            )
            for each in gpu.residences.select_related("host")[:MOST_HISTORY]
        ]
        return table(("Host", "Index", "Since", "Until"), rows)

    @admin.display(description="others in its slot")
    def slot(self, gpu: GPU) -> SafeString | str:
        """The GPUs that this one replaced there, or was replaced by, newest first."""
        if gpu.host_id is None or gpu.index is None:
            return UNKNOWN
        others = Residence.objects.filter(host=gpu.host_id, index=gpu.index, gpu__mig_id="").exclude(gpu__uuid=gpu.uuid)
        rows = [
            (_gpu_link(each.gpu), _shown_time(each.since), _shown_time(each.until or each.gpu.last_seen))
            for each in others.select_related("gpu")[:MOST_HISTORY]
        ]
        return table(("GPU", "First seen there", "Last seen there"), rows)

    @admin.display(description="has run")
    def placements(self, gpu: GPU) -> SafeString | str:
        newest = [
            (each.namespace, each.pod, each.container, _shown_time(each.started), _shown_time(each.ended))
            for each in gpu.placements.all()[:MOST_HISTORY]
        ]
        if not newest:
            return UNKNOWN
        url = reverse("admin:inventory_placement_changelist")
        rows = table(("Namespace", "Pod", "Container", "Started", "Ended"), newest)
        return format_html(
            '{}<p><a href="{}?{}">All placements</a></p>', rows, url, urlencode({"gpu__id__exact": gpu.pk})
        )


class HostModelFilter(admin.SimpleListFilter):
    """By the model of the GPUs in a host."""

    title = "GPU model"
    parameter_name = "model"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, str]]:
        names = GPU.objects.exclude(model_name="").order_by("model_name").values_list("model_name", flat=True)
        return [(name, name) for name in names.distinct()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Host]) -> QuerySet[Host]:
        if self.value() is None:
            return queryset
        return queryset.filter(pk__in=GPU.objects.filter(model_name=self.value()).values("host"))


@admin.register(Host)
class HostAdmin(AssetEditing, RemovableAdmin):
    """Hosts with the number of their physical GPUs."""

    form = HostForm
    key_field = "name"
    goes_with = staticmethod(gpus_of)
    remove = staticmethod(remove_hosts)

    list_display = (
        "name",
        "gpu_count",
        "expected_gpus",
        "reporting",
        "stale",
        "shown_asset_state",
        "owner",
        "shown_tags",
        "last_seen",
    )
    list_filter = ("asset_state", OwnerFilter, TagFilter, HostModelFilter)
    search_fields = ("name", "owner", "tag_text")
    search_help_text = "name, owner or tag"
    fieldsets = (
        (
            None,
            {
                "fields": ("asset_state", "owner", "expected_gpus", "tags", "notes"),
                "description": "Set by people. A host’s state counts for the GPUs in it; their own states do not change.",
            },
        ),
        ("Host", {"fields": ("name", "first_seen", "last_seen", "gpu_count", "reporting", "stale")}),
        ("GPUs", {"fields": ("gpus", "former", "placements")}),
    )
    readonly_fields = ("gpu_count", "reporting", "stale", "gpus", "former", "placements")

    def view_on_site(self, host: Host) -> str | None:
        return _dashboard_url("host", host.name)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Host]:
        physical = Q(gpus__mig_id="")
        stale = Count("gpus", filter=physical & in_state("stale", _ages(request), "gpus__"))
        hosts: QuerySet[Host] = super().get_queryset(request)
        return hosts.annotate(counted=Count("gpus", filter=physical), counted_stale=stale)

    @admin.display(description="GPUs", ordering="counted")
    def gpu_count(self, host: Any) -> SafeString:
        url = reverse("admin:inventory_gpu_changelist")
        return format_html('<a href="{}?host__id__exact={}&amp;kind=physical">{}</a>', url, host.pk, host.counted)

    @admin.display
    def reporting(self, host: Any) -> int:
        return int(host.counted - host.counted_stale)

    @admin.display(ordering="counted_stale")
    def stale(self, host: Any) -> int:
        return int(host.counted_stale)

    @admin.display(description="in it now")
    def gpus(self, host: Host) -> SafeString | str:
        rows = [
            (
                UNKNOWN if each.index is None else each.index,
                _gpu_link(each),
                each.model_name,
                each.get_asset_state_display(),
                _shown_time(each.last_seen),
            )
            for each in host.gpus.filter(mig_id="").order_by("index", "id")[:MOST_GPUS_SHOWN]
        ]
        return table(("Index", "GPU", "Model", "State", "Last seen"), rows)

    @admin.display(description="have left")
    def former(self, host: Host) -> SafeString | str:
        left = host.residences.exclude(until=None).filter(gpu__mig_id="").select_related("gpu")
        rows = [
            (
                UNKNOWN if each.index is None else each.index,
                _gpu_link(each.gpu),
                _shown_time(each.since),
                _shown_time(each.until),
            )
            for each in left[:MOST_HISTORY]
        ]
        return table(("Index", "GPU", "Since", "Until"), rows)

    @admin.display(description="what runs")
    def placements(self, host: Host) -> SafeString:
        url = reverse("admin:inventory_placement_changelist")
        return format_html(
            '<a href="{}?{}">Placements on its GPUs</a>', url, urlencode({"gpu__host__id__exact": host.pk})
        )


@admin.register(Placement)
class PlacementAdmin(ReadOnlyAdmin):
    """Which pods ran where, newest first."""

    list_display = ("pod", "namespace", "container", "gpu_page", "host", "share", "started", "last_seen", "ended")
    list_filter = (("ended", admin.EmptyFieldListFilter), "share", "namespace")
    list_select_related = ("gpu__host",)
    search_fields = ("pod", "namespace", "gpu__id", "gpu__host__name")
    search_help_text = "pod, namespace, uuid or host"

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup in {"gpu__id__exact", "gpu__host__id__exact"} or super().lookup_allowed(lookup, value, request)

    @admin.display(description="GPU", ordering="gpu")
    def gpu_page(self, placement: Placement) -> SafeString:
        return _gpu_link(placement.gpu)

    @admin.display(ordering="gpu__host__name")
    def host(self, placement: Placement) -> SafeString | str:
        return _host_link(placement.gpu.host)


@admin.register(CollectorStatus)
class CollectorStatusAdmin(ReadOnlyAdmin):
    """How the collectors are doing."""

    list_display = (
        "collector_id",
        "started",
        "updated",
        "committed_offset",
        "messages",
        "readings_stored",
        "refused_sum",
    )
    fields = (
        "collector_id",
        "started",
        "updated",
        "store",
        "committed_offset",
        "messages",
        "readings_stored",
        "reasons",
    )
    readonly_fields = ("reasons",)

    @admin.display(description="readings refused")
    def refused_sum(self, status: CollectorStatus) -> int:
        return Kinds.of(status.refused).refused.total()

    @admin.display(description="readings by reason")
    def reasons(self, status: CollectorStatus) -> SafeString | str:
        kinds = zip(("refused", "remarked on", "passed over"), Kinds.of(status.refused), strict=True)
        rows = [(kind, reason, count) for kind, counts in kinds for reason, count in sorted(counts.items())]
        return table(("Kind", "Reason", "Readings"), rows)


@admin.register(LogEntry)
class HistoryAdmin(ReadOnlyAdmin):
    """Who changed or removed which host or GPU, or acted on which event, newest first; also of those that are gone."""

    list_display = ("action_time", "user", "kind", "what", "change")
    list_display_links = None
    list_filter = (("user", admin.RelatedOnlyFieldListFilter),)
    list_select_related = ("user", "content_type")
    search_fields = ("object_repr", "change_message", "user__username")
    search_help_text = "host, GPU, event, what was changed or who did it"

    def get_queryset(self, request: HttpRequest) -> QuerySet[LogEntry]:
        entries: QuerySet[LogEntry] = super().get_queryset(request)
        return entries.filter(content_type__app_label__in=("inventory", "health"))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"title": "Who changed what", **(extra_context or {})})

    @admin.display(ordering="content_type")
    def kind(self, entry: LogEntry) -> str:
        return entry.content_type.name if entry.content_type else UNKNOWN

    @admin.display(description="name", ordering="object_repr")
    def what(self, entry: LogEntry) -> str:
        return entry.object_repr

    @admin.display
    def change(self, entry: LogEntry) -> str:
        return "Removed." if entry.is_deletion() else entry.get_change_message()


def _ages(request: HttpRequest) -> Ages:
    """``ages_now``, once per request: Django builds the queryset of a list several times."""
    if not hasattr(request, "ages"):
        request.ages = ages_now()  # type: ignore[attr-defined]
    ages: Ages = request.ages  # type: ignore[attr-defined]
    return ages


def _gpu_link(gpu: GPU) -> SafeString:
    return format_html('<a href="{}">{}</a>', reverse("admin:inventory_gpu_change", args=(quote(gpu.pk),)), gpu.pk)


def _host_link(host: Host | None) -> SafeString | str:
    if host is None:
        return UNKNOWN
    return format_html('<a href="{}">{}</a>', reverse("admin:inventory_host_change", args=(host.pk,)), host.name)


def _dashboard_url(page: str, name: str) -> str | None:
    """The page of a host or GPU in the dashboard, or None if it has none for such a name."""
    try:
        return reverse(f"dashboard:{page}", args=(name,))
    except NoReverseMatch:
        return None


def _shown_time(time: datetime | None) -> str:
    return UNKNOWN if time is None else str(localize(localtime(time)))
