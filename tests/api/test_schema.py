"""The OpenAPI description says what the views do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from tests.api.conftest import Api

PATHS = {
    "/health",
    "/ready",
    "/api/v1",
    "/api/v1/gpus",
    "/api/v1/gpus/{uuid}",
    "/api/v1/gpus/{uuid}/telemetry",
    "/api/v1/gpus/{uuid}/metrics",
    "/api/v1/telemetry",
    "/api/v1/hosts",
    "/api/v1/hosts/{name}",
    "/api/v1/metrics",
    "/api/v1/stats",
    "/api/v1/tokens",
}


@pytest.fixture
def schema() -> Any:
    return Client().get("/api/schema").json()


def parameters(operation: Any) -> dict[str, Any]:
    return {parameter["name"]: parameter for parameter in operation["parameters"]}


def test_it_is_valid_and_made_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "openapi.yaml"
    call_command("spectacular", "--file", str(path), "--validate", "--fail-on-warn")
    assert path.read_text().startswith("openapi: 3")


def test_it_names_every_path_and_nothing_else(schema: Any) -> None:
    assert set(schema["paths"]) == PATHS
    assert all(set(operations) == {"get"} for operations in schema["paths"].values())


def test_every_operation_is_described(schema: Any) -> None:
    operations = [operations["get"] for operations in schema["paths"].values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        assert operation["summary"]
        assert operation["description"]
        assert set(operation["responses"]) >= {"200", "400"}
        for parameter in operation.get("parameters", []):
            assert parameter["description"], parameter["name"]


def test_parameters_are_those_of_the_view(schema: Any) -> None:
    found = parameters(schema["paths"]["/api/v1/gpus/{uuid}/telemetry"]["get"])
    assert found["uuid"]["in"] == "path"
    assert found["start_time"]["schema"] == {"type": "string", "format": "date-time"}
    assert found["metric_name"]["schema"] == {"type": "array", "items": {"type": "string"}}
    assert found["limit"]["schema"] == {"type": "integer", "minimum": 1}
    assert found["format"]["schema"]["enum"] == ["json", "csv", "ndjson", "parquet"]
    assert found["order"]["schema"]["enum"] == ["desc", "asc"]


def test_errors_are_described(schema: Any) -> None:
    responses = schema["paths"]["/api/v1/gpus/{uuid}"]["get"]["responses"]
    assert set(responses) == {"200", "400", "404", "503"}
    error = responses["404"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[-1]
    assert set(schema["components"]["schemas"][error]["properties"]) == {"error", "message"}


def test_yaml_is_there_too(api: Api) -> None:
    for response in (
        api.ask("/api/schema?format=yaml"),
        api.ask("/api/schema", accept="application/vnd.oai.openapi"),
    ):
        assert response.status_code == 200
        assert response.content.startswith(b"openapi: 3")
    assert json.loads(api.ask("/api/schema").content)["info"]["title"] == "GPU telemetry API"
    assert "format" in api.refused("/api/schema?format=pdf", 400)


def test_an_answer_that_can_be_had_as_a_file_says_so(schema: Any) -> None:
    for path in ("/api/v1/telemetry", "/api/v1/gpus/{uuid}/telemetry"):
        content = schema["paths"][path]["get"]["responses"]["200"]["content"]
        assert set(content) == {
            "application/json", "text/csv", "application/x-ndjson", "application/vnd.apache.parquet",
        }  # fmt: skip
    assert "format" not in parameters(schema["paths"]["/api/v1/hosts"]["get"])
