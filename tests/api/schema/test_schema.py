"""The OpenAPI description says what the views do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from pytest_django import Settings

from api.auth.tokens import make_token
from api.params import MOST_ROWS, TEXT_SCHEMA
from tests.api.conftest import Api

PATHS = {
    "/health",
    "/ready",
    "/api/v1",
    "/api/v1/fleet",
    "/api/v1/fleet/availability",
    "/api/v1/fleet/bands",
    "/api/v1/search",
    "/api/v1/gpus",
    "/api/v1/gpus/{uuid}",
    "/api/v1/gpus/{uuid}/telemetry",
    "/api/v1/gpus/{uuid}/series",
    "/api/v1/gpus/{uuid}/metrics",
    "/api/v1/telemetry",
    "/api/v1/query",
    "/api/v1/hosts",
    "/api/v1/hosts/{name}",
    "/api/v1/placements",
    "/api/v1/events",
    "/api/v1/events/summary",
    "/api/v1/events/{id}",
    "/api/v1/events/{id}/acknowledge",
    "/api/v1/events/{id}/resolve",
    "/api/v1/events/{id}/note",
    "/api/v1/rules",
    "/api/v1/mutes",
    "/api/v1/mutes/{id}",
    "/api/v1/usage",
    "/api/v1/metrics",
    "/api/v1/stats",
    "/api/v1/tokens",
}


@pytest.fixture
def schema(db: None) -> Any:
    return Client().get("/api/schema").json()


def parameters(operation: Any) -> dict[str, Any]:
    return {parameter["name"]: parameter for parameter in operation["parameters"]}


def test_it_is_valid_and_made_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "openapi.yaml"
    call_command("spectacular", "--file", str(path), "--validate", "--fail-on-warn")
    assert path.read_text().startswith("openapi: 3")


def test_it_names_every_path_and_nothing_else(schema: Any) -> None:
    assert set(schema["paths"]) == PATHS
    writing = {path: set(methods) - {"get"} for path, methods in schema["paths"].items() if set(methods) != {"get"}}
    assert writing == {
        "/api/v1/events/{id}/acknowledge": {"post"},
        "/api/v1/events/{id}/resolve": {"post"},
        "/api/v1/events/{id}/note": {"post"},
        "/api/v1/mutes": {"post"},
        "/api/v1/mutes/{id}": {"delete"},
    }


def test_every_operation_is_described(schema: Any) -> None:
    all_of_them = operations(schema)
    assert len({operation["operationId"] for operation in all_of_them}) == len(all_of_them)
    for operation in all_of_them:
        assert operation["summary"]
        assert operation["description"]
        assert set(operation["responses"]) & {"200", "201"}
        assert "400" in operation["responses"]
        for parameter in operation.get("parameters", []):
            assert parameter["description"], parameter["name"]


def test_parameters_are_those_of_the_view(schema: Any) -> None:
    found = parameters(schema["paths"]["/api/v1/gpus/{uuid}/telemetry"]["get"])
    assert found["uuid"]["in"] == "path"
    assert [each.get("format") for each in found["start_time"]["schema"]["anyOf"]] == ["date-time", None, None]
    assert found["metric_name"]["schema"] == {"type": "array", "items": TEXT_SCHEMA, "maxItems": 100}
    assert found["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": MOST_ROWS}
    assert found["format"]["schema"]["enum"] == ["json", "csv", "ndjson", "parquet"]
    assert found["order"]["schema"]["enum"] == ["desc", "asc"]


def test_a_parameter_that_must_be_there_is_marked(schema: Any) -> None:
    found = parameters(schema["paths"]["/api/v1/query"]["get"])
    assert [name for name, parameter in found.items() if parameter.get("required")] == ["metric"]


def test_errors_are_described(schema: Any) -> None:
    responses = schema["paths"]["/api/v1/gpus/{uuid}"]["get"]["responses"]
    assert set(responses) == {"200", "400", "401", "404", "414", "429", "503"}
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


def operations(schema: Any) -> list[Any]:
    return [operation for methods in schema["paths"].values() for operation in methods.values()]


def resolved(schema: Any, node: Any) -> Any:
    while "$ref" in node:
        node = schema["components"]["schemas"][node["$ref"].rsplit("/", 1)[-1]]
    return node


def test_every_answer_and_every_error_has_an_example_of_its_shape(schema: Any) -> None:
    for operation in operations(schema):
        for status, response in operation["responses"].items():
            content = response["content"]["application/json"]
            (example,) = content["examples"].values()
            shape = resolved(schema, content["schema"])
            assert set(example["value"]) == set(shape["properties"]), (operation["operationId"], status)
            assert response["description"] or status in {"200", "201"}
            assert all(len(each["examples"]) == 1 for each in response["content"].values())


def test_every_parameter_says_what_is_allowed(schema: Any) -> None:
    for operation in operations(schema):
        for parameter in operation.get("parameters", []):
            shape = parameter["schema"]
            if shape.get("type") == "array":
                assert shape["maxItems"]
                shape = shape["items"]
            for one in shape.get("anyOf", [shape]):
                told = set(one) & {"enum", "format", "pattern", "minimum", "minLength"}
                assert told, (operation["operationId"], parameter["name"])
                if one.get("type") == "integer":
                    assert "minimum" in one
                    assert "maximum" in one, (operation["operationId"], parameter["name"])


def test_who_may_ask_is_described(schema: Any, settings: Settings) -> None:
    assert set(schema["components"]["securitySchemes"]) == {"token", "session"}
    paths = schema["paths"]
    assert paths["/api/v1/gpus"]["get"]["security"] == [{"token": []}, {"session": []}, {}]
    assert paths["/api/v1/tokens"]["get"]["security"] == [{"token": []}, {"session": []}]
    assert set(paths["/api/v1/tokens"]["get"]["responses"]) == {"200", "400", "401", "403", "414", "429", "503"}
    assert "security" not in paths["/health"]["get"]
    assert "401" not in paths["/health"]["get"]["responses"]
    with_auth = {"authorization": f"Bearer {make_token('schema')[1]}"}
    settings.API_AUTH_REQUIRED = True
    closed = Client().get("/api/schema", headers=with_auth).json()["paths"]
    assert closed["/api/v1/gpus"]["get"]["security"] == [{"token": []}, {"session": []}]


def test_errors_name_their_headers(schema: Any) -> None:
    for operation in operations(schema):
        for status, header in (("401", "WWW-Authenticate"), ("429", "Retry-After"), ("503", "Retry-After")):
            if status in operation["responses"]:
                assert header in operation["responses"][status]["headers"]


def test_what_changes_something_says_what_its_body_holds_and_who_may(schema: Any) -> None:
    for path, body in (("/api/v1/events/{id}/resolve", "ActionBody"), ("/api/v1/mutes", "MuteBody")):
        operation = schema["paths"][path]["post"]
        content = operation["requestBody"]["content"]["application/json"]
        assert content["schema"]["$ref"].endswith(f"/{body}")
        (example,) = content["examples"].values()
        shape = resolved(schema, content["schema"])
        assert set(example["value"]) == set(shape["properties"])
        assert all("maxLength" in each and "pattern" in each for each in shape["properties"].values())
        assert operation["security"] == [{"token": []}, {"session": []}]
        assert {"401", "403", "415"} <= set(operation["responses"])
    assert "for" in shape["properties"]
    assert "409" in schema["paths"]["/api/v1/events/{id}/resolve"]["post"]["responses"]
    assert "requestBody" not in schema["paths"]["/api/v1/mutes/{id}"]["delete"]
    assert schema["paths"]["/api/v1/mutes"]["get"]["security"][-1] == {}


def test_links_lead_to_operations_by_what_the_answer_has(schema: Any) -> None:
    by_id = {operation["operationId"]: operation for operation in operations(schema)}
    found = 0
    for operation in by_id.values():
        answer = operation["responses"].get("200") or operation["responses"]["201"]
        (example,) = answer["content"]["application/json"]["examples"].values()
        for link in answer.get("links", {}).values():
            for name, where in link["parameters"].items():
                assert name in parameters(by_id[link["operationId"]])
                value = example["value"]
                for step in where.removeprefix("$response.body#/").split("/"):
                    value = value[int(step) if isinstance(value, list) else step]
                assert isinstance(value, str | int)
                found += 1
    assert found > 8


def test_an_answer_that_can_be_had_as_a_file_says_so(schema: Any) -> None:
    for path in ("/api/v1/telemetry", "/api/v1/gpus/{uuid}/telemetry"):
        content = schema["paths"][path]["get"]["responses"]["200"]["content"]
        assert set(content) == {
            "application/json", "text/csv", "application/x-ndjson", "application/vnd.apache.parquet",
        }  # fmt: skip
    assert "format" not in parameters(schema["paths"]["/api/v1/hosts"]["get"])
