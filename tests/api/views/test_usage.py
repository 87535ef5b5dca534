"""Usage: who held GPUs, and used them."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from pytest_django import Settings

from api.auth.tokens import make_token
from api.schema.usage_answers import UsageFiguresAnswer
from api.usage import figures_of, group_parts
from api.views import usage
from health.usage.packing import HOUR_NS
from health.usage.rows import UsageRow
from readings.times import SECOND, format_time, parse_time
from tests.api.conftest import Api
from tests.health.usage.filling import Watched, add_to_inventory
from tests.health.usage.reckoning import LIMIT, POWER, SM, UTIL
from tests.health.usage.test_meter import gpu_of

USAGE = "/api/v1/usage"
MINUTE = 60 * SECOND
DAY = 24 * HOUR_NS
PRICES = """
currency = "EUR"
energy_per_kwh = 0.2
co2_grams_per_kwh = 400
[gpu_hour]
H100 = 2.5
"""


@pytest.fixture
def start(db: None) -> int:
    """Three GPUs over 30 hours, up to half an hour ago: one busy, one held and idle, one free and without power readings."""
    begin = (time.time_ns() - 30 * HOUR_NS) // MINUTE * MINUTE
    busy, idle, free = (
        gpu_of(1, namespace="ml", pod="train"),
        gpu_of(2, namespace="web", pod="serve"),
        gpu_of(3, model_name="T4"),
    )
    watched = Watched()
    for at in range(begin, begin + 30 * HOUR_NS - 30 * MINUTE, 5 * MINUTE):
        power = {POWER: 300.0, LIMIT: 600.0}
        watched.send(
            [(busy, at, {UTIL: 90.0, SM: 0.5, **power}), (idle, at, {UTIL: 0.0, **power}), (free, at, {UTIL: 0.0})]
        )
    watched.commit()
    add_to_inventory([busy, idle, free], begin)
    return begin


@pytest.fixture
def priced(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(PRICES)
    settings.USAGE_PRICES = str(path)


def by_name(answer: Any, name: str) -> dict[str, Any]:
    return {row["group"][name]: row for row in answer["data"]}


def test_namespaces_with_what_they_held_and_did_not_use(api: Api, start: int) -> None:
    answer = api.get(USAGE)
    assert [row["group"]["namespace"] for row in answer["data"]] == ["web", "ml", ""]
    rows = by_name(answer, "namespace")
    known = 29.5 - 5 / 60
    assert rows["web"]["held_hours"] == rows["web"]["idle_held_hours"] == pytest.approx(known)
    assert rows["ml"]["active_hours"] == pytest.approx(known)
    assert rows["ml"]["effective_hours"] == pytest.approx(known / 2)
    assert rows["web"]["effective_upper_bound"] == 1.0
    assert rows[""]["free_hours"] == pytest.approx(known)
    assert rows["ml"]["power_utilisation"] == 0.5
    assert answer["total"]["gpus"] == 3
    assert answer["newest"] == format_time(start + int(29.5 * 60 - 5) * MINUTE)
    assert (answer["idle_percent"], answer["idle_percent_second"]) == (5.0, 10.0)
    assert "currency" not in answer
    assert "costs" not in answer["total"]
    assert "co2_grams" not in answer["total"]


@pytest.mark.parametrize("by", ["gpu", "host", "model", "namespace", "pod", "owner", "tag:team"])
@pytest.mark.parametrize("per", ["", "&per=day"])
def test_everything_adds_up(api: Api, start: int, by: str, per: str) -> None:
    answer = api.get(f"{USAGE}?by={by}{per}")
    total, reconciles = answer["total"], answer["reconciles"]
    assert reconciles["exact"]
    assert reconciles["held_ns"] + reconciles["free_ns"] + reconciles["unknown_ns"] == reconciles["total_ns"]
    end = parse_time(answer["end_time"])
    assert reconciles["total_ns"] == 3 * (end - start)
    names = (
        "total_hours",
        "held_hours",
        "free_hours",
        "unknown_hours",
        "idle_held_hours",
        "energy_kwh",
        "idle_held_kwh",
    )
    for name in names:
        assert sum(row[name] for row in answer["data"]) == pytest.approx(total[name], abs=1e-3), name
    assert all(row["coverage"] is not None for row in answer["data"])
    assert answer["by"] == by
    assert answer["per"] == ("day" if per else "range")
    if per:
        assert {row["day"][10:] for row in answer["data"]} == {"T00:00:00Z"}


def test_the_answer_says_which_range_was_used(api: Api, start: int) -> None:
    answer = api.get(f"{USAGE}?start_time={start + 10 * HOUR_NS}&end_time={start + 12 * HOUR_NS}")
    begin = (start + 10 * HOUR_NS) // HOUR_NS * HOUR_NS
    assert (parse_time(answer["start_time"]), parse_time(answer["end_time"])) == (
        begin,
        -(-(start + 12 * HOUR_NS) // HOUR_NS) * HOUR_NS,
    )
    assert parse_time(api.get(f"{USAGE}?end_time=2200-01-01T00:00:00Z&start_time=-1h")["end_time"]) <= time.time_ns()


def test_filters(api: Api, start: int) -> None:
    assert api.get(f"{USAGE}?hostname=node-0&by=gpu")["data"][0]["group"] == {"gpu": "GPU-2"}
    assert api.get(f"{USAGE}?model=T4")["total"]["gpus"] == 1
    answer = api.get(f"{USAGE}?namespace=web&by=pod")
    assert [row["group"] for row in answer["data"]] == [{"namespace": "web", "pod": "serve"}]
    assert answer["reconciles"] is None
    assert answer["total"]["free_hours"] == answer["total"]["unknown_hours"] == 0
    assert api.get(f"{USAGE}?pod=train&namespace=web")["data"] == []


def test_top_leaves_groups_out_but_not_of_the_total(api: Api, start: int) -> None:
    path = f"{USAGE}?per=day&end_time={start + 20 * HOUR_NS}"
    whole, answer = api.get(path), api.get(f"{path}&top=1")
    assert {row["group"]["namespace"] for row in answer["data"]} == {"web"}
    assert answer["count"] == len(answer["data"]) == len({row["day"] for row in answer["data"]})
    assert answer["total"] == whole["total"]


@pytest.mark.usefixtures("priced")
def test_costs_come_with_prices_and_add_up(api: Api, start: int) -> None:
    answer = api.get(f"{USAGE}?by=gpu&per=day")
    assert answer["currency"] == "EUR"
    assert answer["models_without_price"] == []
    total = answer["total"]
    assert total["costs"]["held"] == pytest.approx(2 * (29.5 - 5 / 60) * 2.5, abs=1e-6)
    assert total["costs"]["idle_held"] == pytest.approx(total["costs"]["held"] / 2, abs=1e-6)
    assert total["costs"]["energy"] == pytest.approx(total["energy_kwh"] * 0.2, abs=1e-5)
    assert total["co2_grams"] == pytest.approx(total["energy_kwh"] * 400, abs=1)
    for name in total["costs"]:
        millionths = [round((row["costs"][name] or 0) * 1e6) for row in answer["data"]]
        assert sum(millionths) == round(total["costs"][name] * 1e6)


def test_prices_that_cannot_be_read_any_more_are_an_error(
    api: Api, db: None, settings: Settings, tmp_path: Path
) -> None:
    settings.USAGE_PRICES = str(tmp_path / "gone.toml")
    assert "USAGE_PRICES: " in api.refused(USAGE, 503)


@pytest.mark.usefixtures("priced")
@pytest.mark.parametrize("path", [f"{USAGE}?by=pod", f"{USAGE}?by=gpu&per=day"])
def test_files_have_the_same_rows(api: Api, start: int, path: str) -> None:
    answer = api.get(path)
    groups = group_parts(answer["by"])
    text = b"".join(api.ask(f"{path}&format=csv")).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert len(rows) == answer["count"]
    for got, row in zip(rows, answer["data"], strict=True):
        assert [got[name] for name in groups] == [row["group"][name] for name in groups]
        assert float(got["idle_held_hours"]) == row["idle_held_hours"]
        assert got["held_cost"] == ("" if row["costs"]["held"] is None else str(row["costs"]["held"]))
        assert (got["currency"], got["start_time"]) == ("EUR", answer["start_time"])
        assert got.get("day") == row.get("day")
    ndjson = [json.loads(line) for line in b"".join(api.ask(f"{path}&format=ndjson")).splitlines()]
    assert [row["energy_kwh"] for row in ndjson] == [row["energy_kwh"] for row in answer["data"]]
    table = parquet.read_table(io.BytesIO(b"".join(api.ask(f"{path}&format=parquet"))))
    assert table["gpus"].to_pylist() == [row["gpus"] for row in answer["data"]]


def test_a_file_for_a_spreadsheet_has_no_formulas(api: Api, db: None) -> None:
    watched = Watched()
    begin = time.time_ns() - HOUR_NS
    for minute in range(3):
        watched.send([(gpu_of(1, namespace="=1+1", pod="p"), begin + minute * MINUTE, {UTIL: 1.0})])
    watched.commit()
    assert b"'=1+1" in b"".join(api.ask(f"{USAGE}?format=csv&csv_safe=true"))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("by=colour", "by 'colour' must be one of gpu, host, model, namespace, pod, owner, or tag:NAME, as tag:team"),
        ("by=tag:", "by 'tag:' must be one of"),
        ("by=tag:1x", "by 'tag:1x' must be one of"),
        ("per=hour", "per 'hour' is not known: use range or day"),
        ("start_time=-1h&end_time=-2h", "end_time must be later than start_time"),
        ("per=day&start_time=2000-01-01T00:00:00Z", "per=day is for ranges of at most 800 days"),
        ("top=0", "top '0'"),
        ("colour=red", "colour' is not a known parameter"),
    ],
)
def test_a_bad_parameter_is_a_400(api: Api, db: None, query: str, message: str) -> None:
    assert message in api.refused(f"{USAGE}?{query}", 400)


def test_too_many_rows_are_a_400(api: Api, start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "MOST_ROWS", 2)
    assert "3 rows are too many at once, 2 are allowed: use top" in api.refused(f"{USAGE}?by=gpu", 400)
    assert len(b"".join(api.ask(f"{USAGE}?by=gpu&format=csv")).splitlines()) == 4
    monkeypatch.setattr(usage, "MOST_EXPORTED_ROWS", 2)
    assert "3 rows are too many" in api.refused(f"{USAGE}?by=gpu&format=csv", 400)


def test_a_page_in_a_browser_shows_the_first_rows(api: Api, start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "PAGE_ROWS", 2)
    page = api.ask(f"{USAGE}?by=gpu", accept="text/html").content.decode()
    assert "The first 2 of 3 rows are shown" in page


def test_reading_needs_a_token_where_that_is_required(api: Api, start: int, settings: Settings) -> None:
    settings.API_AUTH_REQUIRED = True
    api.refused(USAGE, 401)
    _, secret = make_token("reader")
    assert api.ask(USAGE, authorization=f"Bearer {secret}").status_code == 200


def test_nothing_known_is_no_error(api: Api, db: None) -> None:
    answer = api.get(USAGE)
    assert (answer["data"], answer["newest"], answer["total"]["coverage"]) == ([], None, None)
    assert set(figures_of(UsageRow(()), None)) == set(UsageFiguresAnswer.__struct_fields__) - {"costs", "co2_grams"}
