"""The login page and the list of tokens."""

from __future__ import annotations

from django.contrib.auth.views import LoginView as DjangoLoginView
from django.contrib.auth.views import LogoutView
from rest_framework.request import Request
from rest_framework.response import Response

from api.models import ApiToken, TokenScope
from api.pagination import cut_list
from api.params import format_datetime, paging_of
from api.schema.answers import TokenAnswer, TokenListAnswer
from api.views.base import ApiView

__all__ = ["LoginView", "LogoutView", "TokensView"]


class LoginView(DjangoLoginView):
    """Logs in a user of the admin and leads back to the page that required the login."""

    template_name = "api/login.html"
    redirect_authenticated_user = True


class TokensView(ApiView):
    """The API tokens: name, scope, expiry and last use. The tokens themselves are never shown."""

    name = "Tokens"
    tag = "access"
    operation_id = "tokens"
    answer = TokenListAnswer
    parameters = paging_of("all")
    scope = TokenScope.ADMIN

    def get(self, request: Request) -> Response:
        """The API tokens by name. Requires the scope admin, even where reading is open."""
        tokens = ApiToken.objects.all()
        part, links = cut_list(request, self.values, list(tokens))
        return Response(TokenListAnswer([token_answer(token) for token in part], len(tokens), **links._asdict()))


def token_answer(token: ApiToken) -> TokenAnswer:
    """One token, without the token itself."""
    return TokenAnswer(
        id=token.pk,
        name=token.name,
        scope=token.scope,  # type: ignore[arg-type]  # the database gives it as text
        state=token.state(),
        hint=token.hint,
        created=format_datetime(token.created),
        expires=format_datetime(token.expires) if token.expires else None,
        revoked=format_datetime(token.revoked) if token.revoked else None,
        last_used=format_datetime(token.last_used) if token.last_used else None,
    )
