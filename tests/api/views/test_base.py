"""What every view shares."""

from __future__ import annotations

import pytest
from django.urls import URLPattern, get_resolver
from django.urls.resolvers import URLResolver

from api.views.base import ApiView
from stores.base import Store
from tests.api.conftest import Api


def views() -> list[type[ApiView]]:
    def walk(patterns: list[URLPattern | URLResolver]) -> list[type[ApiView]]:
        found: list[type[ApiView]] = []
        for pattern in patterns:
            if isinstance(pattern, URLResolver):
                found += walk(pattern.url_patterns)
            elif isinstance(cls := getattr(pattern.callback, "cls", None), type) and issubclass(cls, ApiView):
                found.append(cls)
        return found

    return walk(get_resolver().url_patterns)


@pytest.mark.parametrize("view", views(), ids=lambda view: view.__name__)
def test_a_view_names_no_parameter_twice(view: type[ApiView]) -> None:
    names = [parameter.name for parameter in (*view.parameters, view.format_parameter())]
    assert len(set(names)) == len(names)
    assert 400 in view.error_statuses


def test_there_are_views() -> None:
    assert len(views()) > 14


@pytest.mark.parametrize(
    "path", ["/api/v1", "/api/v1/gpus/GPU-a0", "/api/v1/gpus/GPU-a0/metrics", "/api/v1/metrics", "/api/v1/stats"]
)
def test_a_view_without_parameters_refuses_all(api: Api, fleet: Store, path: str) -> None:
    assert "'debug'" in api.refused(f"{path}?debug=1", 400)


@pytest.mark.parametrize("path", ["/api/v1/gpus", "/api/v1/telemetry", "/health"])
def test_head_answers_as_get_without_a_body(api: Api, fleet: Store, path: str) -> None:
    response = api.head(path)
    assert response.status_code == 200
    assert response.content == b""
    assert api.head(f"{path}?x=1").status_code == 400
