"""The documented shapes are those of the answers."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework import serializers

from api.schema.serializers import (
    ErrorSerializer,
    GpuDetailSerializer,
    GpuPageSerializer,
    HealthSerializer,
    HostDetailSerializer,
    HostPageSerializer,
    IndexSerializer,
    MetricListSerializer,
    MetricNamesSerializer,
    NotReadySerializer,
    ReadingPageSerializer,
    ReadySerializer,
    SeriesSerializer,
    StatsSerializer,
)
from inventory.status import add_counts
from stores.base import Store
from tests.api.conftest import Api
from tests.api.views.test_stats import STARTED


def differences(field: Any, value: Any, where: str = "") -> list[str]:
    """Where an answer and its documentation say different things."""
    if value is None:
        return [] if field.allow_null else [f"{where} is null"]
    if isinstance(field, serializers.ListSerializer | serializers.ListField):
        return [each for item in value for each in differences(field.child, item, f"{where}[]")]
    if isinstance(field, serializers.DictField):
        return [each for item in value.values() for each in differences(field.child, item, f"{where}{{}}")]
    if isinstance(field, serializers.BaseSerializer):
        assert isinstance(field, serializers.Serializer)
        missing = {name for name, each in field.fields.items() if each.required} - set(value)
        surplus = set(value) - set(field.fields)
        return [
            *(f"{where}.{name} is missing" for name in missing),
            *(f"{where}.{name} is not documented" for name in surplus),
            *(
                each
                for name in set(value) & set(field.fields)
                for each in differences(field.fields[name], value[name], f"{where}.{name}")
            ),
        ]
    field.run_validation(value)  # raises for a value of another kind
    return []


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/health", HealthSerializer),
        ("/ready", ReadySerializer),
        ("/api/v1", IndexSerializer),
        ("/api/v1/gpus?mig=true&page_size=2", GpuPageSerializer),
        ("/api/v1/gpus/GPU-a0", GpuDetailSerializer),
        ("/api/v1/gpus/GPU-b0:3/telemetry", ReadingPageSerializer),
        ("/api/v1/gpus/GPU-a0/metrics", MetricNamesSerializer),
        ("/api/v1/telemetry?page=2&page_size=3", ReadingPageSerializer),
        (
            "/api/v1/query?metric=DCGM_FI_DEV_GPU_UTIL&by=pod&start_time=2025-07-18T20:00:00Z&end_time=2025-07-18T21:00:00Z",
            SeriesSerializer,
        ),
        ("/api/v1/hosts", HostPageSerializer),
        ("/api/v1/hosts/host-a", HostDetailSerializer),
        ("/api/v1/metrics", MetricListSerializer),
        ("/api/v1/stats", StatsSerializer),
    ],
)
def test_an_answer_has_the_documented_shape(
    api: Api, fleet: Store, path: str, shape: type[serializers.Serializer[Any]]
) -> None:
    add_counts("c1", started=STARTED, messages=1, readings_stored=17, refused={"blank": 1}, committed_offset=0)
    assert differences(shape(), api.ask(path, host="localhost").json()) == []


def test_errors_have_the_documented_shape(api: Api) -> None:
    assert differences(ErrorSerializer(), api.ask("/api/v1?x=1").json()) == []


def test_what_is_not_ready_has_the_documented_shape() -> None:
    body = {"error": "unavailable", "message": "m", "checks": {"database": "ok", "store": "does not answer"}}
    assert differences(NotReadySerializer(), body) == []


def test_a_difference_is_found() -> None:
    assert differences(ErrorSerializer(), {"error": "x", "surplus": 1}) == [
        ".message is missing",
        ".surplus is not documented",
    ]
