"""What Helm renders is what Kubernetes takes: linted, and checked by its own schemas of the three newest versions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import kubernetes_validate
import pytest
from kubernetes_validate import utils

from tests.helm.chart import CHART, WAYS, helm, render

VERSIONS = utils.all_versions()[-3:]
OPERATOR = "monitoring.coreos.com/v1"


@pytest.fixture(autouse=True)
def _schemas_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "schema_contents", _schema_contents)


_schema_contents = lru_cache(maxsize=None)(utils.schema_contents)


def validate(each: dict[str, Any], version: str) -> None:
    """Raises ValidationError for a field that is missing, of another type or not known."""
    kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("way", WAYS)
def test_lint_has_nothing_to_say(way: str) -> None:
    arguments = [word for word in WAYS[way] if word != "--is-upgrade"]
    done = helm("lint", "--strict", str(CHART), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 chart(s) linted, 0 chart(s) failed" in done.stdout


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", WAYS)
def test_every_object_is_valid(way: str, version: str) -> None:
    objects = [each for each in render(*WAYS[way]).objects if each["apiVersion"] != OPERATOR]
    assert len(objects) > 10
    for each in objects:
        validate(each, version)


def test_a_field_that_is_not_known_would_be_found() -> None:
    service = render().one("Service", "tele-api")
    service["spec"]["portz"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(service, VERSIONS[-1])


def test_the_versions_are_those_that_the_chart_is_for() -> None:
    assert len(VERSIONS) == 3
    assert all(tuple(map(int, version.split(".")[:2])) >= (1, 28) for version in VERSIONS)


@pytest.mark.parametrize("way", WAYS)
def test_no_two_objects_have_one_name(way: str) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in render(*WAYS[way]).objects]
    assert len(names) == len(set(names))


def test_an_old_cluster_is_refused() -> None:
    done = helm("template", "tele", str(CHART), "--kube-version", "1.27.3")
    assert "this chart needs Kubernetes 1.28 or newer; this is v1.27.3" in done.stderr
