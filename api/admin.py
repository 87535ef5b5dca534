"""API tokens in Django's admin: create, show once, revoke."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from api.auth.tokens import fill_token, forget, revoke
from api.links import list_url
from api.models import ApiToken
from inventory.lookups import CheapLookups


@admin.register(ApiToken)
class ApiTokenAdmin(CheapLookups):
    """A token's name, scope and digest never change. Its expiry may."""

    list_display = ("name", "hint", "scope", "shown_state", "created", "expires", "revoked", "last_used")
    list_filter = ("scope", ("revoked", admin.EmptyFieldListFilter))
    search_fields = ("name", "hint")
    search_help_text = "name, or the start of the token"
    actions = ("revoke_tokens",)
    fields = ("name", "scope", "expires")

    def get_fields(self, request: HttpRequest, obj: ApiToken | None = None) -> tuple[str, ...]:
        if obj is None:
            return self.fields
        return (*self.fields, "hint", "shown_state", "created", "revoked", "last_used")

    def get_readonly_fields(self, request: HttpRequest, obj: ApiToken | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        return ("name", "scope", "hint", "shown_state", "created", "revoked", "last_used")

    @admin.display(description="state")
    def shown_state(self, token: ApiToken) -> str:
        return token.state()

    def save_model(self, request: HttpRequest, obj: ApiToken, form: Any, change: bool) -> None:
        if not change:
            request.new_token = fill_token(obj)  # type: ignore[attr-defined]  # for response_add only
        super().save_model(request, obj, form, change)
        forget()

    def delete_model(self, request: HttpRequest, obj: ApiToken) -> None:
        super().delete_model(request, obj)
        forget()

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        super().delete_queryset(request, queryset)
        forget()

    def response_add(self, request: HttpRequest, obj: ApiToken, post_url_continue: str | None = None) -> HttpResponse:
        """The one page that shows the token. Neither a message nor the session holds it."""
        context = {
            **self.admin_site.each_context(request),
            "title": f"Token {obj.name}",
            "token": obj,
            "gpus_url": list_url("gpus", request),
            "secret": request.new_token,  # type: ignore[attr-defined]
            "opts": self.opts,
        }
        return TemplateResponse(request, "admin/api/token_made.html", context)

    @admin.action(description="Revoke selected API tokens", permissions=["change"])
    def revoke_tokens(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        count = revoke(queryset)
        self.message_user(
            request, f"{count} revoked; other web processes refuse them within 5 seconds.", messages.SUCCESS
        )


class CheapUserAdmin(CheapLookups, UserAdmin):  # type: ignore[type-arg]  # it cannot be subscripted
    """Django's users. Who has changed something stays, so that the history can name them."""

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What a confirmation page lists. It refuses to delete users whom the history names."""
        going, counts, lacking, protected = super().get_deleted_objects(objs, request)
        named = LogEntry.objects.filter(user__in=objs).order_by("user__username")
        why = "the history of what {} changed (clear “Active” on the user’s page instead)"
        names = named.values_list("user__username", flat=True).distinct()
        return (
            going,
            counts,
            lacking - {LogEntry._meta.verbose_name},
            [*protected, *(why.format(name) for name in names)],
        )


class CheapGroupAdmin(CheapLookups, GroupAdmin):
    """Django's groups."""


for _model, _admin in ((User, CheapUserAdmin), (Group, CheapGroupAdmin)):
    admin.site.unregister(_model)
    admin.site.register(_model, _admin)
