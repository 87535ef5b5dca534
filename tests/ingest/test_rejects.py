from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from pytest_django import Settings

from ingest.dead_letters import DeadLetters
from ingest.errors import SourceError
from ingest.rejects import repaired_batches, send
from tests.broker.harness import running_broker
from tests.ingest.processes import free_port
from tests.ingest.wiring import local, read_batches, readings_of

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
    first, _, last = run("count").splitlines()
    assert first.split()[:3] == ["3", "blank", "a.csv"]
    assert last.split()[:4] == ["4", "in", "2", "files"]


def test_repaired_batches_are_checked_before_any_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "repaired.ndjson"
    letter = {"reason": "bad_message", "offset": 7, "payload": json.dumps(GOOD)}
    path.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(letter) + "\n")
    assert [json.loads(batch) for batch in repaired_batches(path)] == [GOOD, GOOD]
    for line, said in (("{", "line 1 is no batch"), ("{}", "neither"), ('{"metrics":[{"value":"x"}]}', "line 1: ")):
        path.write_text(line)
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
