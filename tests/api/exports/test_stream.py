"""Exports: everything that is asked for, in three formats; and what becomes of one that cannot go on."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.http import StreamingHttpResponse
from pyarrow import parquet
from pytest_django import Settings

from api.exports import stream as exports
from api.exports.stream import AT_ONCE, ExportBroken, file_name
from ingest.collector.collector import Collector
from ingest.streamer.file import stream
from readings.model import Gpu, Point, PointBlock
from readings.times import SECOND
from stores.base import ReadingsQuery, RowBatch, SeriesLabels, Store, StoreUnavailable
from stores.sqlite import SqliteStore
from tests.api.conftest import A0, MINUTE, POWER, T0, UTIL, Api, block_of, save
from tests.broker.harness import running_broker
from tests.ingest.wiring import collect_config, stream_config

A0_TELEMETRY = "/api/v1/gpus/GPU-a0/telemetry"
FLEET = "/api/v1/telemetry"
MEDIA_TYPES = {"csv": "text/csv", "ndjson": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}


def body_of(response: Any) -> bytes:
    assert response.status_code == 200, response.content
    assert isinstance(response, StreamingHttpResponse)
    body = b"".join(response)
    response.close()
    return body


def rows_of(store: Store) -> list[tuple[int, float, SeriesLabels]]:
    page = store.page(ReadingsQuery(limit=10_000))
    return [
        (time_ns, value, page.origins[place])
        for time_ns, value, place in zip(page.times, page.values, page.places, strict=True)
    ]


def csv_of(api: Api, path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(body_of(api.ask(path)).decode(), newline=""), strict=True))


@pytest.fixture
def many(fleet: Store) -> Store:
    """More rows of one GPU than a page has."""
    save(fleet, block_of([A0], [(0, T0 - MINUTE + row * SECOND // 10, [1.0 * row, 0.5, None]) for row in range(600)]))
    return fleet


@pytest.mark.parametrize("path", [FLEET, A0_TELEMETRY, f"{FLEET}?order=asc", f"{A0_TELEMETRY}?metric_name={UTIL}"])
def test_every_format_has_all_rows_in_order(api: Api, many: Store, settings: Settings, path: str) -> None:
    settings.MAX_PAGE_SIZE = 100_000
    with_ = "&" if "?" in path else "?"
    whole = api.get(f"{path}{with_}{'limit' if 'gpus' in path else 'page_size'}=100000")["data"]
    assert len(whole) > 500
    settings.MAX_PAGE_SIZE = 100
    ndjson = body_of(api.ask(f"{path}{with_}format=ndjson")).decode().splitlines()
    assert [json.loads(line) for line in ndjson] == whole
    rows = csv_of(api, f"{path}{with_}format=csv")
    assert [
        (row["timestamp"], row["uuid"], row["metric_name"], float(row["value"]), row["mig_id"]) for row in rows
    ] == [(row["timestamp"], row["uuid"], row["metric_name"], row["value"], row.get("mig_id", "")) for row in whole]
    table = parquet.read_table(io.BytesIO(body_of(api.ask(f"{path}{with_}format=parquet"))))
    assert table["value"].to_pylist() == [row["value"] for row in whole]
    assert table["pod"].to_pylist() == [row["pod"] for row in whole]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        (f"{FLEET}?limit=5", 5),
        (f"{FLEET}?page_size=7", 7),
        (f"{FLEET}?offset=15", 2),
        (f"{A0_TELEMETRY}?page=2&page_size=4", 3),
        (f"{FLEET}?start_time=2025-07-18T20:42:35Z&end_time=2025-07-18T20:42:35Z", 1),
        (f"{FLEET}?start_time=2025-07-18T20:42:34Z&end_before=2025-07-18T20:42:35Z", 7),
        (f"{FLEET}?page=3&page_size=8", 1),
        (f"{FLEET}?hostname=host-b", 7),
        (f"{FLEET}?limit=999999999999", 17),
        (f"{A0_TELEMETRY}?limit=4", 4),
        (f"{A0_TELEMETRY}?offset=5", 2),
        (f"{A0_TELEMETRY}?limit=4&offset=5", 2),
        (f"{A0_TELEMETRY}?hostname=elsewhere", 0),
    ],
)
def test_what_is_asked_for_is_kept_to(api: Api, fleet: Store, settings: Settings, query: str, count: int) -> None:
    settings.MAX_PAGE_SIZE = 2
    assert len(csv_of(api, f"{query}&format=csv")) == count


def test_an_export_goes_on_from_a_cursor(api: Api, fleet: Store) -> None:
    first = api.get(f"{FLEET}?page_size=5")
    rest = csv_of(api, first["next"].replace("http://testserver", "").replace("page_size=5&", "") + "&format=csv")
    assert len(rest) == 12


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_the_answer_says_what_it_is(api: Api, fleet: Store, name: str) -> None:
    for response in (api.ask(f"{A0_TELEMETRY}?format={name}"), api.ask(A0_TELEMETRY, accept=MEDIA_TYPES[name])):
        assert response["Content-Type"] == MEDIA_TYPES[name]
        assert re.fullmatch(
            rf'attachment; filename="telemetry_GPU-a0_\d{{8}}T\d{{6}}Z\.{name}"', response["Content-Disposition"]
        )
        assert "Accept" in response["Vary"]
        assert body_of(response)
    head = api.head(f"{A0_TELEMETRY}?format={name}")
    assert (head.status_code, head["Content-Type"], body_of(head)) == (200, MEDIA_TYPES[name], b"")
    assert "Content-Length" not in head


def test_a_name_is_one_that_any_system_takes() -> None:
    assert re.fullmatch(r"a_b-c-d_\d+T\d+Z\.csv", file_name("a", "", "b/c:d", "...", extension="csv"))
    assert len(file_name("x" * 500, extension="csv")) < 120


@pytest.mark.parametrize("name", MEDIA_TYPES)
@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{A0_TELEMETRY}?limit=x", 400),
        (f"{FLEET}?pge=1", 400),
        ("/api/v1/gpus/GPU-none/telemetry?order=asc", 404),
        ("/api/v1/query?agg=most", 400),
    ],
)
def test_an_error_is_json(api: Api, fleet: Store, path: str, status: int, name: str) -> None:
    api.refused(f"{path}&format={name}", status)


def test_a_formula_is_defused_on_request(api: Api, fleet: Store) -> None:
    save(fleet, block_of([Gpu(uuid="GPU-f", pod='=HYPERLINK("x")')], [(0, T0, [1.0, None, None])]))
    path = "/api/v1/gpus/GPU-f/telemetry?format=csv"
    assert csv_of(api, path)[0]["pod"] == '=HYPERLINK("x")'
    assert csv_of(api, f"{path}&csv_safe=true")[0]["pod"] == '\'=HYPERLINK("x")'
    assert "csv_safe" in api.refused(f"{path}&csv_safe=yes", 400)


# Without control characters, which no reader takes in a name.
NASTY = [
    'a,"b"',
    "=HYPERLINK(1)",
    "ünï\u00a0😀",
    "'",
    '"',
    "\\",
    "</x>",
    "-",
    "a;b",
    "N",
]


@pytest.mark.django_db(transaction=True)
def test_our_own_csv_source_reads_an_export_back_to_the_same_readings(api: Api, store: Store, tmp_path: Path) -> None:
    gpus = [
        Gpu(
            uuid=f"GPU-{number}{text}", hostname=text, gpu_id=number, device=text, model_name=text, mig_id=str(number),
            container=text, pod=text, namespace=text,
        )
        for number, text in enumerate(NASTY)
    ]  # fmt: skip
    gpus += [A0, Gpu(uuid="GPU-bare")]
    chance = random.Random(8)
    names = [UTIL, POWER, "MY_METRIC", 'mine, "too"', "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL:nvlink:3", "=sum"]
    odd = [5e-324, -0.0, 1.4e14 + 0.3, 0.1 + 0.2, 123456789.12345679, -1e-7]
    points: list[Point] = [
        (
            place,
            T0 + chance.randrange(10**12),
            [chance.uniform(0, 100), chance.uniform(0, 400), *chance.sample(odd, 2), 3.0, value],
        )
        for place in range(len(gpus))
        for value in odd
    ]
    store.write([PointBlock(gpus, names, points)])
    (tmp_path / "export.csv").write_bytes(body_of(api.ask(f"{FLEET}?format=csv")))
    again = SqliteStore(tmp_path / "again.sqlite3")

    async def bring_in() -> None:
        async with running_broker(tmp_path / "log") as broker:
            totals = await stream(stream_config(tmp_path / "export.csv", broker.port, tmp_path / "s"), asyncio.Event())
            assert totals.done
            await Collector(collect_config(broker.port, tmp_path), again).run(once=True)

    asyncio.run(bring_in())
    whole = rows_of(store)
    assert len(whole) == len(points) * len(names)
    assert rows_of(again) == whole
    again.close()


class Breaking:
    """A store that gives some portions and then fails."""

    def __init__(self, store: Store, error: Exception, after: int) -> None:
        self._store, self._error, self._after = store, error, after
        self.closed = False

    def stream(self, query: ReadingsQuery) -> Iterator[RowBatch]:
        """As many as it was told to."""
        try:
            for _ in range(self._after):
                yield self._store.page(ReadingsQuery(limit=5))
            raise self._error
        finally:
            self.closed = True


def broken(monkeypatch: pytest.MonkeyPatch, store: Store, error: Exception, after: int) -> Breaking:
    breaking = Breaking(store, error, after)
    monkeypatch.setattr("api.views.telemetry.get_store", lambda: breaking)
    return breaking


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_a_store_that_is_away_at_the_start_is_a_503(
    api: Api, fleet: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    broken(monkeypatch, fleet, StoreUnavailable("gone"), 0)
    for _ in range(AT_ONCE + 1):  # none of them keeps its place
        assert "store" in api.refused(f"{FLEET}?format={name}", 503)


@pytest.mark.parametrize("error", [StoreUnavailable("gone"), ValueError("ours")])
@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_one_that_breaks_off_does_not_look_whole(
    api: Api, fleet: Store, monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    breaking = broken(monkeypatch, fleet, error, 2)
    response = api.ask(f"{FLEET}?format={name}")
    parts: list[bytes] = []
    with pytest.raises((ExportBroken, ValueError)):
        parts.extend(response)
    response.close()
    assert breaking.closed
    last = b"".join(parts).decode("utf-8", "replace").splitlines()[-1]
    if name != "parquet":
        assert "not complete" in last
        assert "gone" not in last  # it may name files of this machine


def test_no_more_than_a_few_at_once(api: Api, fleet: Store) -> None:
    running = [api.ask(f"{FLEET}?format=csv") for _ in range(AT_ONCE)]
    response = api.ask(f"{FLEET}?format=csv")
    assert response.status_code == 503
    assert int(response["Retry-After"]) > 0
    assert "exports are running" in response.json()["message"]
    running[0].close()  # a client that went away before it read anything
    assert len(csv_of(api, f"{FLEET}?format=csv")) == 17
    for each in running:
        each.close()
        each.close()
    assert len(csv_of(api, f"{FLEET}?format=csv")) == 17


def test_it_ends_soon_after_the_service_is_told_to_stop(
    api: Api, fleet: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports.serving, "ends_at", lambda: time.monotonic() - 1)
    response = api.ask(f"{FLEET}?format=csv")
    parts: list[bytes] = []
    with pytest.raises(ExportBroken, match="stopping"):
        parts.extend(response)
    response.close()
    assert b"the service is stopping" in parts[-1]


@pytest.mark.parametrize(("size", "pieces"), [(400, True), (7, False)])
def test_it_ends_between_any_two_pieces_and_on_a_line_of_its_own(
    api: Api, fleet: Store, monkeypatch: pytest.MonkeyPatch, size: int, pieces: bool
) -> None:
    """Whole lines where a piece holds one; else the last line begins a new one."""
    monkeypatch.setattr(exports, "PIECE_BYTES", size)
    response = api.ask(f"{FLEET}?format=csv")
    body = iter(response)
    parts = [next(body) for _ in range(3)]
    assert all(part.endswith(b"\n") for part in parts) == pieces
    monkeypatch.setattr(exports.serving, "ends_at", lambda: time.monotonic() - 1)
    with pytest.raises(ExportBroken, match="stopping"):
        parts.extend(body)
    response.close()
    assert len(parts) == 4
    assert b"".join(parts).splitlines()[-1].startswith(b"error: this export is not complete")


def test_what_is_short_is_still_sent_while_the_service_stops(
    api: Api, fleet: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports.serving, "ends_at", lambda: time.monotonic() + 60)
    assert len(csv_of(api, f"{FLEET}?format=csv&metric_name={POWER}")) == 6
