from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta, timezone
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from django.core.management import call_command
from django.core.management.base import CommandError
from pytest_django import Settings

from broker.client.client import Message
from ingest.collector.decode import BatchDecoder
from ingest.dead_letters import DeadLetters, letter_files, read_letters
from ingest.errors import SourceError
from ingest.exporter.scraper import ScrapeConfig, Scraper
from ingest.exporter.targets import Targets
from ingest.management.commands.rejects import repaired_batches, send
from ingest.streamer.file import stream
from ingest.streamer.live import LiveConfig, LiveStreamer
from readings.batch import decode, encode_block
from readings.model import Gpu, PointBlock
from readings.times import parse_time
from tests.broker.harness import running_broker
from tests.ingest.captures import METRICS, START, line, row, uuid_of, write_capture
from tests.ingest.exporter.test_scraper import serving
from tests.ingest.wiring import local, read_batches, readings_of, stream_config
from tests.ports import free_port

T0 = parse_time(START)
GOOD = {"metrics": [{"timestamp": 1752871354, "metric_name": "x", "uuid": "GPU-1", "value": 5}]}


@pytest.fixture
def state(tmp_path: Path, settings: Settings) -> Path:
    settings.STATE_DIR = tmp_path
    letters = DeadLetters(tmp_path, "streamer-1")
    letters.write({"reason": "blank", "source": "a.csv", "line": number, "raw": "ä"} for number in range(3))
    DeadLetters(tmp_path, "collector-1").write([{"reason": "bad_message", "offset": 7, "payload": "{"}])
    with letters.path.open("a") as file:
        file.write('{"cut')
    return tmp_path


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("rejects", *arguments, stdout=out)
    return out.getvalue()


@pytest.mark.usefixtures("state")
def test_they_are_listed_and_counted() -> None:
    assert [json.loads(line)["line"] for line in run("list", "--reason", "blank").splitlines()] == [0, 1, 2]
    assert len(run("list").splitlines()) == 4
    assert len(run("list", "--limit", "2").splitlines()) == 2
    first, _, torn, last = run("count").splitlines()
    assert torn.split()[:2] == ["1", "lines"]
    assert first.split()[:3] == ["3", "blank", "a.csv"]
    assert last.split()[:4] == ["4", "in", "2", "files"]


def test_repaired_batches_are_checked_before_any_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "repaired.ndjson"
    letter = {"reason": "bad_message", "offset": 7, "payload": json.dumps(GOOD)}
    path.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(letter) + "\n")
    assert [json.loads(batch) for batch in repaired_batches(path)] == [GOOD, GOOD]
    for text, said in (("{", "line 1 is not a batch"), ("{}", "neither"), ('{"metrics":[{"value":"x"}]}', "line 1: ")):
        path.write_text(text)
        with pytest.raises(SourceError, match=said):
            list(repaired_batches(path))
    with pytest.raises(SourceError, match="cannot be read"):
        list(repaired_batches(tmp_path / "none"))


async def test_they_are_published(tmp_path: Path) -> None:
    async with running_broker(tmp_path / "log") as broker:
        assert await send([json.dumps(GOOD).encode()] * 2, local(broker.port)) == 2
        batches = await read_batches(broker.port)
    assert [len(readings_of([batch.block])) for batch in batches] == [1, 1]


def test_without_a_broker_it_is_one_line(tmp_path: Path, settings: Settings) -> None:
    settings.MQ_HOST, settings.MQ_PORT = "127.0.0.1", free_port()
    path = tmp_path / "repaired.ndjson"
    path.write_text(json.dumps(GOOD))
    with pytest.raises(CommandError, match="no broker at"):
        call_command("rejects", "resend", str(path))


def letters_of(folder: Path) -> list[dict[str, Any]]:
    return [letter.fields for letter in read_letters(letter_files(folder))]


async def test_a_row_a_line_and_a_reading_that_were_refused_are_repaired_and_sent(tmp_path: Path) -> None:
    """As they lie in the dead letters, each with its own mistake; the mistake alone is changed."""
    capture = write_capture(tmp_path / "capture.csv", gpus=1)
    with capture.open("a") as file:
        file.write(line(row(METRICS[0], time="2025-07-18T20:43:00Z", value="5O")))
    label = 'UUID="GPU-1",gpu="0",Hostname="a"'

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=f"{METRICS[0]}{{{label}}} N/A\n{METRICS[1]}{{{label}}} 50\n")

    async with running_broker(tmp_path / "log") as broker:
        await stream(stream_config(capture, broker.port, tmp_path / "csv"), asyncio.Event())
        async with serving(answer) as url:
            source = Scraper(ScrapeConfig(), Targets([url]))
            live = LiveConfig(broker=local(broker.port), state_dir=tmp_path / "live", once=True)
            await LiveStreamer(live, source, asyncio.Event()).run()
    decoder = BatchDecoder(retention=0)
    gpu = Gpu(uuid="GPU-2", mig_id="3", pod="p", share=True)
    payload = encode_block(
        PointBlock([gpu], [METRICS[0]], [(0, T0, [2619.0])]), batch_id="b", source="s", collected_at=""
    )
    decoder.take(Message(7, 0, "m", payload))
    DeadLetters(tmp_path / "collector", "collector-1").write(decoder.drain().letters)

    [of_row], [of_line], [of_reading] = (letters_of(tmp_path / name) for name in ("csv", "live", "collector"))
    assert (of_row["reason"], of_row["line"]) == ("bad_number", 5)
    assert (of_line["reason"], of_line["line"]) == ("not_available", 1)
    assert (of_reading["reason"], of_reading["offset"]) == ("out_of_range", 7)
    path = tmp_path / "repaired.ndjson"
    path.write_text("".join(json.dumps(letter) + "\n" for letter in (of_row, of_line, of_reading)))
    with pytest.raises(SourceError, match="line 1: bad_number"):
        list(repaired_batches(path))

    of_row["raw"] = of_row["raw"].replace("5O", "50")
    of_line["raw"] = of_line["raw"].replace("N/A", "60")
    path.write_text("".join(json.dumps(letter) + "\n" for letter in (of_row, of_line, of_reading)))
    with pytest.raises(SourceError, match="line 3: out_of_range"):
        list(repaired_batches(path))
    of_reading["batch"]["points"][0][2][0] = 26.19
    path.write_text("".join(json.dumps(letter) + "\n" for letter in (of_row, of_line, of_reading)))

    async with running_broker(tmp_path / "log2") as broker:
        assert await send(repaired_batches(path), local(broker.port)) == 3
        blocks = [batch.block for batch in await read_batches(broker.port)]
    first, second, third = readings_of(blocks)
    assert first == (uuid_of(0), METRICS[0], parse_time("2025-07-18T20:43:00Z"), 50.0)
    assert second == ("GPU-1", METRICS[0], parse_time(of_line["time"]), 60.0)
    assert third == ("GPU-2", METRICS[0], T0, 26.19)
    assert blocks[2].gpus == [gpu]


def test_a_letter_with_nothing_to_send_is_named(tmp_path: Path) -> None:
    path = tmp_path / "repaired.ndjson"
    path.write_text('{"reason":"no_identity","detail":"x"}\n')
    with pytest.raises(SourceError, match="line 1 is not a batch: a dead letter without payload, batch or raw"):
        list(repaired_batches(path))


PLAIN = {"timestamp": "2025-07-18T20:42:34Z", "metric_name": "x", "uuid": "GPU-1-2", "value": 5}
COMPACT = {
    "gpus": [{"uuid": "GPU-1-2", "hostname": "a"}, {"uuid": "GPU-1-3"}],
    "metric_names": ["x", "y"],
    "points": [[1, T0, [5, 6]]],
}


@pytest.mark.parametrize(
    ("payload", "repair"),
    [
        ({"metrics": [{**PLAIN, "value": "5O"}]}, lambda batch: batch["metrics"][0].update(value=5)),
        ({"metrics": [{**PLAIN, "value": {}}]}, lambda batch: batch["metrics"][0].update(value=5)),
        ({"metrics": [{**PLAIN, "timestamp": "now"}]}, lambda batch: batch["metrics"][0].update(timestamp=1752871354)),
        ({"metrics": [{**PLAIN, "uuid": None}]}, lambda batch: batch["metrics"][0].update(uuid="GPU-1-2")),
        ({"metrics": [{**PLAIN, "metric_name": []}]}, lambda batch: batch["metrics"][0].update(metric_name="x")),
        ({**COMPACT, "points": [[1, T0, ["a", 6]]]}, lambda batch: batch["points"][0][2].__setitem__(0, 5)),
        ({**COMPACT, "points": [[1, "t", [5, None]]]}, lambda batch: batch["points"][0].__setitem__(1, T0)),
        ({**COMPACT, "points": [[1, T0, [5]]]}, lambda batch: batch["points"][0][2].append(6)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("indent", [None, 1])
def test_readings_refused_while_decoding_are_repaired_and_sent_again(
    tmp_path: Path, payload: dict[str, Any], repair: Callable[[Any], None], indent: int | None
) -> None:
    decoder = BatchDecoder(retention=0)
    decoder.take(Message(7, 0, "m", json.dumps(payload, indent=indent).encode()))
    DeadLetters(tmp_path, "collector-1").write(decoder.drain().letters)
    letter, *_ = letters_of(tmp_path)
    repair(letter["batch"])
    path = tmp_path / "repaired.ndjson"
    path.write_text(json.dumps(letter))
    [batch] = repaired_batches(path)
    block = decode(batch, now_ns=T0).block
    assert block.points[0][1] == T0
    assert block.points[0][2][0] == 5
    assert block.metric_names[0] == "x"


async def test_a_row_of_nvidia_smi_is_repaired_as_it_was_read(tmp_path: Path) -> None:
    capture = tmp_path / "smi.csv"
    capture.write_text("timestamp; uuid; power.draw [W]; pstate\n2025/07/18 22:42:34; GPU-1-2; 3o,5 W; P0\n")
    async with running_broker(tmp_path / "log") as broker:
        config = replace(
            stream_config(capture, broker.port, tmp_path), zone=timezone(timedelta(hours=2)), hostname="lab-7"
        )
        await stream(config, asyncio.Event())
    [letter] = letters_of(tmp_path)
    assert letter["reason"] == "bad_number"
    letter["raw"] = letter["raw"].replace("3o", "30")
    path = tmp_path / "repaired.ndjson"
    path.write_text(json.dumps(letter))
    [batch] = repaired_batches(path)
    block = decode(batch, now_ns=time.time_ns()).block
    assert sorted((name, value) for _, name, time_ns, value in readings_of([block]) if time_ns == T0) == [
        ("DCGM_FI_DEV_POWER_USAGE", 30.5),
        ("DCGM_FI_DEV_PSTATE", 0.0),
    ]
    assert block.gpus[0].hostname == "lab-7"


def test_a_reading_that_the_store_refused_is_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "repaired.ndjson"
    letter = {"reason": "store_refused", "gpu": "GPU-1-2:3", "metric_name": "x", "time_ns": T0, "value": 5}
    path.write_text(json.dumps(letter))
    [batch] = repaired_batches(path)
    assert decode(batch, now_ns=T0).block.gpus == [Gpu(uuid="GPU-1-2", mig_id="3")]


def test_what_is_printed_cannot_move_a_cursor(tmp_path: Path, settings: Settings) -> None:
    settings.STATE_DIR = tmp_path
    evil = "a\x1b[31m\u202e\n\x9bb"
    letters = DeadLetters(tmp_path, "x")
    letters.write([{"reason": evil, "source": evil, "raw": evil}])
    for action in ("count", "list"):
        text = run(action)
        assert all(line.isprintable() for line in text.splitlines())
    assert json.loads(run("list"))["raw"] == evil
    assert r"\x1b[31m\u202e" in run("count")
    with letters.path.open("a") as file:
        file.write('{"cut\n')
    assert "1  lines that are no letters" in run("count")
