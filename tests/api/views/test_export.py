"""Views whose rows can be had as a file."""

from __future__ import annotations

import csv
import io
import json

import pytest
from pyarrow import parquet

from api.views.base import CSV_SAFE, ExportView
from stores.base import Store
from tests.api.conftest import POWER, Api
from tests.api.views.test_base import views

QUERY = f"/api/v1/query?metric={POWER}&by=gpu&every=5m&start_time=2025-07-18T20:30:00Z&end_time=2025-07-18T20:45:00Z"


def test_each_says_that_it_knows_csv_safe() -> None:
    found = [view for view in views() if issubclass(view, ExportView)]
    assert {view.operation_id for view in found} == {"gpu_telemetry", "telemetry", "query", "usage"}
    assert all(CSV_SAFE in view.parameters for view in found)


@pytest.mark.parametrize("by", ["gpu", "host", "pod", ""])
def test_the_windows_of_a_query_can_be_had_in_every_format(api: Api, fleet: Store, by: str) -> None:
    path = QUERY.replace("by=gpu", f"by={by}") if by else QUERY.replace("&by=gpu", "")
    answer = api.get(path)
    whole = [(time, value, *each["group"].values()) for each in answer["data"] for time, value in each["points"]]
    assert any(value is None for _, value, *_ in whole)
    names = list(answer["data"][0]["group"])
    ndjson = [json.loads(line) for line in b"".join(api.ask(f"{path}&format=ndjson")).splitlines()]
    assert [(row["timestamp"], row["value"], *[row[name] for name in names]) for row in ndjson] == whole
    text = b"".join(api.ask(f"{path}&format=csv")).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert [
        (row["timestamp"], float(row["value"]) if row["value"] else None, *[row[name] for name in names])
        for row in rows
    ] == whole
    response = api.ask(f"{path}&format=parquet")
    assert f"query_{POWER}_" in response["Content-Disposition"]
    table = parquet.read_table(io.BytesIO(b"".join(response)))
    assert table["value"].to_pylist() == [value for _, value, *_ in whole]
