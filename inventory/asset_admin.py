"""Editing what people note about hosts and GPUs: the form, the actions on many rows, and the filters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import label_for_field
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet, TextField
from django.db.models.fields.json import KeyTransform
from django.db.models.functions import Cast
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from inventory.assets import NOTHING, change_assets, describe, history_message, shown_value
from inventory.models import ASSET_FIELDS, AssetState
from inventory.tags import MOST_TAGS, MOST_VALUE, NAME_RULE, TagError, format_tags, parse_tags

MOST_NOTES = 4000
MOST_EXPECTED_GPUS = 1024
MOST_CHOICES = 50
MOST_LISTED = 200
TAG_HELP = (
    f"name: value, one on each line; {NAME_RULE}, a value up to {MOST_VALUE} characters; at most {MOST_TAGS} tags"
)


class OwnerField(forms.CharField):
    """A person or team. As in a tag's value, every character can be seen: owners are shown on pages and on terminals."""

    def __init__(self, **options: Any) -> None:
        super().__init__(required=False, max_length=255, **options)

    def validate(self, value: str) -> None:
        """Raises ValidationError for a line break, a control character or a mark that turns the writing direction."""
        super().validate(value)
        if not value.isprintable():
            raise ValidationError("An owner has printable characters only.")


class TagsField(forms.CharField):
    """Tags as lines of text."""

    widget = forms.Textarea

    def prepare_value(self, value: Any) -> Any:
        """The stored tags as text; what a person typed stays as typed."""
        return format_tags(value) if isinstance(value, dict) else value

    def to_python(self, value: Any) -> Any:
        """The tags by name. Raises ValidationError with one line for each bad line."""
        try:
            return parse_tags(value or "")
        except TagError as error:
            raise ValidationError(error.problems) from None

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Whether the tags differ: order and spaces do not count."""
        try:
            return bool(self.to_python(data) != (initial or {}))
        except ValidationError:
            return True


class AssetForm(forms.ModelForm):  # type: ignore[type-arg]  # of hosts and of GPUs
    """The fields that people may change."""

    owner = OwnerField(help_text="a person or team", widget=forms.TextInput(attrs={"class": "vTextField"}))
    tags = TagsField(required=False, help_text=TAG_HELP, widget=forms.Textarea(attrs={"rows": 4, "cols": 60}))
    notes = forms.CharField(required=False, max_length=MOST_NOTES, widget=forms.Textarea(attrs={"rows": 4, "cols": 60}))


class HostForm(AssetForm):
    """A host's fields that people may change."""

    expected_gpus = forms.IntegerField(
        label="Expected GPUs",
        required=False,
        min_value=0,
        max_value=MOST_EXPECTED_GPUS,
        help_text=f"0 to {MOST_EXPECTED_GPUS}; empty: learned from other hosts of the same model",
    )


class NoInput(forms.Form):
    """Of an action that asks for nothing."""


class OwnerForm(forms.Form):
    """Asks for an owner."""

    value = OwnerField(label="Owner", help_text="empty: nobody")


class TagForm(forms.Form):
    """Asks for one tag."""

    value = forms.CharField(label="Tag", help_text=f"name: value; {NAME_RULE}")

    def clean_value(self) -> dict[str, str]:
        """The tag. Raises ValidationError."""
        try:
            return parse_tags(self.cleaned_data["value"])
        except TagError as error:
            raise ValidationError(error.problems) from None


class TagNameForm(forms.Form):
    """Asks which of the tags to remove."""

    value = forms.ChoiceField(label="Tag")

    def offer(self, all_tags: Iterable[dict[str, str]]) -> bool:
        """Offers the names of these tags. Returns whether there are any."""
        names = sorted({name for tags in all_tags for name in tags})
        self.fields["value"].choices = [(name, name) for name in names]  # type: ignore[attr-defined]
        return bool(names)


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of one field of many rows: ``new_value(what the form asked for, old value)``."""

    field: str
    new_value: Callable[[Any, Any], Any]
    form_class: type[forms.Form] = NoInput


def _with_tag(tag: dict[str, str], tags: dict[str, str]) -> dict[str, str]:
    """Raises TagError if that would be too many."""
    new = {**tags, **tag}
    if len(new) > max(MOST_TAGS, len(tags)):
        raise TagError([f"One of the selected has {MOST_TAGS} tags already; more are not allowed."])
    return new


def _without_tag(name: str, tags: dict[str, str]) -> dict[str, str]:
    return {other: value for other, value in tags.items() if other != name}


class AssetEditing(admin.ModelAdmin[Any]):
    """Pages on which the asset fields can be changed, of one row or of many. All other fields are the collectors'."""

    actions: Sequence[str] | None = (
        "set_maintenance",
        "set_active",
        "retire",
        "set_owner",
        "add_tag",
        "remove_tag",
    )
    key_field: ClassVar[str]  # what change_assets takes

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return admin.ModelAdmin.has_change_permission(self, request, obj)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Rows in which each word is found; ``tag_text`` among the searched fields stands for the tags."""
        return super().get_search_results(request, queryset.alias(tag_text=Cast("tags", TextField())), search_term)

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        """Who may only look sees tags as the lists show them."""
        fieldsets = super().get_fieldsets(request, obj)
        if self.has_change_permission(request, obj):
            return fieldsets
        return [
            (title, {**options, "fields": ["shown_tags" if name == "tags" else name for name in options["fields"]]})
            for title, options in fieldsets
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """All but the asset fields."""
        fields = {field.name for field in self.opts.get_fields() if not field.is_relation or field.many_to_one}
        return sorted({*fields, *self.readonly_fields, "shown_tags"} - ASSET_FIELDS)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Writes what the person changed, and nothing that a collector may be writing now."""
        changed = {name: getattr(obj, name) for name in form.changed_data}
        if changed:
            type(obj)._default_manager.filter(pk=obj.pk).update(**changed)

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        return history_message(
            [describe(name, form.initial[name], form.cleaned_data[name]) for name in form.changed_data]
        )

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Keeps what has changed; a form saved unchanged is no change."""
        return super().log_change(request, obj, message) if message else None

    @admin.display(description="tags")
    def shown_tags(self, row: Any) -> SafeString | str:
        return format_html_join(" ", '<span class="tag">{}: {}</span>', sorted(row.tags.items())) or NOTHING

    @admin.display(description="state", ordering="asset_state")
    def shown_asset_state(self, row: Any) -> SafeString | str:
        label = row.get_asset_state_display()
        return format_html('<span class="asset-{}">{}</span>', row.asset_state, label)

    @admin.action(description="Set selected %(verbose_name_plural)s in maintenance", permissions=["change"])
    def set_maintenance(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return self._set_state(request, queryset, AssetState.MAINTENANCE)

    @admin.action(description="Set selected %(verbose_name_plural)s active", permissions=["change"])
    def set_active(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return self._set_state(request, queryset, AssetState.ACTIVE)

    @admin.action(description="Retire selected %(verbose_name_plural)s", permissions=["change"])
    def retire(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return self._set_state(request, queryset, AssetState.RETIRED)

    @admin.action(description="Set owner of selected %(verbose_name_plural)s", permissions=["change"])
    def set_owner(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return self._edit(request, queryset, Edit("owner", lambda owner, _: owner, OwnerForm))

    @admin.action(description="Add tag to selected %(verbose_name_plural)s", permissions=["change"])
    def add_tag(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return self._edit(request, queryset, Edit("tags", _with_tag, TagForm))

    @admin.action(description="Remove tag from selected %(verbose_name_plural)s", permissions=["change"])
    def remove_tag(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return self._edit(request, queryset, Edit("tags", _without_tag, TagNameForm))

    def _set_state(self, request: HttpRequest, queryset: QuerySet[Any], state: AssetState) -> HttpResponse | None:
        return self._edit(request, queryset, Edit("asset_state", lambda _, __: state.value))

    def _edit(self, request: HttpRequest, queryset: QuerySet[Any], edit: Edit) -> HttpResponse | None:
        """Asks on a page of its own, and then changes the rows."""
        rows = dict(queryset.order_by(self.key_field).values_list(self.key_field, edit.field))
        form = edit.form_class(request.POST if "apply" in request.POST else None)
        if isinstance(form, TagNameForm) and not form.offer(rows.values()):
            self.message_user(request, "None of the selected have tags.", messages.WARNING)
            return None
        if form.is_bound and form.is_valid():
            value = form.cleaned_data.get("value")
            try:
                count = change_assets(
                    self.model,
                    list(rows),
                    edit.field,
                    lambda old: edit.new_value(value, old),
                    cast(int, request.user.pk),
                )
            except TagError as error:
                form.add_error("value", error.problems)
            else:
                name = self.opts.verbose_name if len(rows) == 1 else self.opts.verbose_name_plural
                self.message_user(request, f"Changed {count} of {len(rows)} {name}.", messages.SUCCESS)
                return None
        return self._asking(request, rows, edit, form)

    def _asking(self, request: HttpRequest, rows: dict[str, Any], edit: Edit, form: forms.Form) -> HttpResponse:
        """The page that asks for the value and lists the rows: what they have now, or what will change."""
        if form.fields:
            lines = {key: shown_value(edit.field, old) for key, old in rows.items()}
        else:
            changes = {key: (old, edit.new_value(None, old)) for key, old in rows.items()}
            lines = {key: describe(edit.field, old, new) for key, (old, new) in changes.items() if new != old}
        select_across = request.POST.get("select_across") == "1"
        selected = request.POST.getlist(ACTION_CHECKBOX_NAME)
        action = request.POST["action"]
        context = {
            **self.admin_site.each_context(request),
            "title": dict(self.get_action_choices(request, []))[action],
            "opts": self.opts,
            "media": self.media,
            "form": form,
            "action": action,
            # Of a whole list one is enough: it is selected by the list's own filters again.
            "selected": selected[:1] if select_across else selected,
            "select_across": int(select_across),
            "checkbox_name": ACTION_CHECKBOX_NAME,
            "column": label_for_field(edit.field, self.model),
            "rows": list(lines.items())[:MOST_LISTED],
            "count": len(lines),
            "total": len(rows),
            "more": max(0, len(lines) - MOST_LISTED),
        }
        return TemplateResponse(request, "admin/inventory/edit_selected.html", context)


class OwnerFilter(admin.SimpleListFilter):
    """By owner: those who own most."""

    title = "owner"
    parameter_name = "owner"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, str]]:
        owners = model_admin.model._default_manager.exclude(owner="").order_by().values_list("owner", flat=True)
        return _most_frequent(owners, self.value())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(owner=self.value()) if self.value() else queryset


class TagFilter(admin.SimpleListFilter):
    """By tag: ``name: value``."""

    title = "tag"
    parameter_name = "tag"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, str]]:
        all_tags = model_admin.model._default_manager.exclude(tags={}).order_by().values_list("tags", flat=True)
        return _most_frequent((f"{name}: {value}" for tags in all_tags for name, value in tags.items()), self.value())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Rows with this tag; none for what is not a tag."""
        try:
            tags = parse_tags(self.value() or "")
        except TagError:
            return queryset.none()
        for name, value in tags.items():
            queryset = queryset.alias(tag_value=KeyTransform(name, "tags")).filter(tag_value=value)
        return queryset


def _most_frequent(values: Iterable[str], chosen: str | None) -> list[tuple[str, str]]:
    """Choices of a filter: the most frequent values in order, and the chosen one."""
    found = {value for value, _ in Counter(values).most_common(MOST_CHOICES)}
    if chosen:
        found.add(chosen)
    return [(value, value) for value in sorted(found)]
