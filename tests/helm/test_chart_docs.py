"""README.md and values.schema.json say what values.yaml says."""

from __future__ import annotations

import json
import re

import pytest

from ci.chart_docs import CHART, Value, make_files, make_schema, make_table, read_values
from telemetry_site.options import BY_NAME
from tests.helm.chart import ROOT

VALUES = """\
# -- how many
count: 2
folder:
  # -- any
  # @schema {"enum": ["a", "b"]}
  name: a
  # -- a whole section
  resources:
    limits: {memory: 1Gi}
  # -- settings
  settings: {}
"""


def test_what_is_written_from_the_values_is_up_to_date() -> None:
    for path, text in make_files().items():
        assert path.read_text() == text, f"{path.name}: run make chart-docs"


def test_every_setting_can_be_made_in_the_chart() -> None:
    plain = set(json.loads((CHART / "values.schema.json").read_text())["$defs"]["settings"]["properties"])
    templates = "".join(path.read_text() for path in (CHART / "templates").rglob("*.*"))
    secret = {name for name, option in BY_NAME.items() if option.secret}
    assert plain == set(BY_NAME) - secret
    # No service needs what `manage.py top` asks with.
    assert [name for name in secret - {"API_TOKEN"} if f'"{name}"' not in templates] == []


@pytest.mark.parametrize(
    "page", ["docs/deploy.md", "docs/operations.md", "helm/gpu-telemetry/README.md", "deploy/kind/README.md"]
)
def test_pages_name_values_and_settings_that_are_there(page: str) -> None:
    text = (ROOT / page).read_text()
    known = {value.path for value in read_values((CHART / "values.yaml").read_text())}
    for path in re.findall(r"--set '?([a-zA-Z.]+(?:\.[A-Z_]+)?)=", text):
        words = tuple(path.split("."))
        if "settings" in words:
            assert words[-1] in BY_NAME, path
            words = words[:-1]
        assert words in known, path


def test_each_value_has_its_line_and_its_default() -> None:
    assert list(read_values(VALUES)) == [
        Value(("count",), 2, "how many", {}),
        Value(("folder", "name"), "a", "any", {"enum": ["a", "b"]}),
        Value(("folder", "resources"), {"limits": {"memory": "1Gi"}}, "a whole section", {}),
        Value(("folder", "settings"), {}, "settings", {}),
    ]


def test_a_value_without_a_description_is_named() -> None:
    with pytest.raises(ValueError, match=r"folder\.name has no line"):
        list(read_values("folder:\n  name: a\n"))


def test_the_table_has_a_row_for_each() -> None:
    assert '| `folder.name` | `"a"` | any |' in make_table(list(read_values(VALUES)))


def test_the_schema_knows_types_and_nothing_else_passes() -> None:
    values = [*read_values(VALUES), Value(("global", "x"), "", "x", {})]
    schema = make_schema(values)
    assert schema["properties"]["count"] == {"description": "how many", "type": "integer", "minimum": 0}
    folder = schema["properties"]["folder"]
    assert folder["additionalProperties"] is False
    assert folder["properties"]["name"]["enum"] == ["a", "b"]
    settings = schema["$defs"]["settings"]["properties"]
    assert "FSYNC" in settings
    assert "BROKER_TOKEN" not in settings
