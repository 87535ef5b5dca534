"""Whatever comes from outside costs in proportion to its size: a hostile text of four times the size takes less than ten times the time.

Each reader gets each shape. Times are CPU seconds of this process, the least of several, and both sizes are measured in turn.
"""

from __future__ import annotations

import gc
import io
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from struct import pack

import pytest

from broker.errors import BrokerError
from broker.log.record import decode_record
from broker.log.scan import frame_starts
from broker.protocol.frames import FrameReader
from broker.protocol.messages import decode_request
from ingest.capture.form import fields_of, find_separator, recognise, separator_line
from ingest.capture.position import ResumeStore
from ingest.capture.rows import CsvRecords
from ingest.capture.source import CsvSource
from ingest.dead_letters import read_letters
from ingest.errors import SourceError
from ingest.exporter.exposition import Exposition, NotMetrics
from ingest.exporter.targets import parse_target
from ingest.management.commands.rejects import repaired_batches
from ingest.parts import Parts
from readings.batch import BatchError, decode
from readings.checks import parse_value
from readings.labels import read_labels, split_labels, without_name
from readings.text import hide_passwords, printable
from readings.times import parse_duration, parse_time
from stores.base import StoreError
from stores.influxdb.answers import decode_results, split_lines, status_error

ROOT = Path(__file__).resolve().parents[2]
SMALL, FACTOR, MOST_RATIO, NOISE_S = 8_000, 4, 10.0, 0.02

# Texts of about so many characters.
REPEATED = (
    "}", "{", '"', "\\", "\\\"", ",", ";", "\t", " ", "=", "[", "]", "0", "9.", "-", "e", ":", "/", "#", "\n", "\r\n", "\x00", "é", "|",
    'a="', 'a="b",', 'a="\\n",', '{"a":', '"",', '"\n', 'a{b="c"} 1\n', "x 1 # {} 1 ", " # ", "# HELP a b\n", "<<<", "GPU-", "0000-", "@//", "1d",
)  # fmt: skip
SHAPES: dict[str, Callable[[int], str]] = {
    **{f"{piece!r} again and again": lambda size, piece=piece: piece * (size // len(piece)) for piece in REPEATED},  # type: ignore[misc]
    "an unterminated string": lambda size: '"' + "a" * size,
    "labels of many names": lambda size: ",".join(f'n{each}="v{each}"' for each in range(size // 16)),
    "labels of one name": lambda size: ",".join(f'n="v{each}"' for each in range(size // 12)),
}

HEADER = "timestamp,metric_name,uuid,value,labels_raw\n"
SMI = "timestamp, uuid, power.draw [W], pstate\n"


def _exposition(text: str) -> None:
    for body in (
        text, f"m{{{text}}} 1\n", f'm{{UUID="GPU-1-2",gpu="{text}"}} 1\n', f'm{{UUID="GPU-1-2"}} {text}\n', f'm{{UUID="GPU-1-2"}} 1{text}',
    ):  # fmt: skip
        with suppress(NotMetrics):
            Exposition("h").read(body, 1)


def _csv(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        row = f"2025-07-18T20:42:34Z,m,GPU-1-2,1,{text}\n"
        quoted = '"' + text.replace('"', '""') + '"'
        for body in (
            HEADER + text, HEADER + row, HEADER + f"2025-07-18T20:42:34Z,m,GPU-1-2,1,{quoted}\n", HEADER + f"{text},m,GPU-1-2,1,\n",
            HEADER.replace(",", ";") + row.replace(",", ";"), HEADER + f"1752871354,m,GPU-1-2,{text},\n", text + "\n1\n",
            SMI + text, SMI + f"2025/07/18 20:42:34, GPU-1-2, {text}, P0\n", SMI + f"2025/07/18 20:42:34, {text}, 1 W, P0\n",
        ):  # fmt: skip
            path.write_text(body, newline="")
            with suppress(SourceError):
                source = CsvSource(str(path), needs_timestamp=True)
                while not source.read().done:
                    pass
                source.last_time(1 << 62, lambda: False)
                source.close()


def _records(text: str) -> None:
    for _ in CsvRecords(io.BytesIO(text.encode())):
        pass


def _headers(text: str) -> None:
    separator_line(text)
    separator = find_separator(text)
    with suppress(SourceError):
        recognise(fields_of(text, separator), needs_timestamp=True, delimiter=separator)


def _batch(text: str) -> None:
    quoted = json.dumps(text)
    plain = '{"metrics":[{"timestamp":1752871354,"metric_name":"m","uuid":"GPU-1-2","value":%s,"pod":%s,"labels":{"a":%s}}]}'
    compact = '{"gpus":[{"uuid":"GPU-1-2","hostname":%s}],"metric_names":[%s,%s],"points":[[0,5,[%s,%s]]]}'
    for body in (
        text, plain % (quoted, "1", "1"), plain % ("1", quoted, quoted), plain % (text, "1", "1"), plain % ("1", text, text),
        compact % (quoted, '"a"', '"b"', 1, 2), compact % ("1", quoted, '"b"', 1, quoted), compact % ("1", '"a"', '"b"', text, text),
    ):  # fmt: skip
        with suppress(BatchError):
            for refusal in decode(body.encode(), now_ns=10**18).refusals:
                if refusal.original is not None:
                    refusal.original()


def _frames(text: str) -> None:
    data = text.encode()
    framed = pack(">I", len(data)) + data
    FrameReader(1 << 24).feed(framed)
    reader = FrameReader(1 << 24)
    for at in range(0, len(framed), 64):  # in small pieces
        reader.feed(framed[at : at + 64])
    FrameReader(1 << 24).feed(pack(">I", 1) * (len(data) // 4))
    for body in (
        data,
        b'{"type":"publish","payload":%b}' % data,
        b'{"type":"publish","payload":%b}' % json.dumps(text).encode(),
    ):
        with suppress(BrokerError):
            decode_request(body)


def _log(text: str) -> None:
    data = text.encode()
    frame_starts(data)
    with suppress(BrokerError, ValueError):
        decode_record(pack(">I", len(data)) + data)


def _influxdb(text: str) -> None:
    data = text.encode()
    for body in (data, b'{"results":[{"series":[{"columns":["a"],"values":[[%b]]}]}]}' % json.dumps(text).encode()):
        for form in ("", "application/x-msgpack"):
            with suppress(StoreError, RecursionError):
                decode_results("s", body, form)
    with suppress(RecursionError):
        status_error("s", 400, {"Retry-After": text}, data)
        status_error("s", 503, {"Retry-After": text}, data)
    for _ in split_lines([data[at : at + 64] for at in range(0, len(data), 64)]):
        pass


def _files(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_text(text)
        Parts(path)
        for _ in read_letters([path]):
            pass
        for body in (
            text,
            json.dumps({"reason": "x", "header": text, "raw": text}),
            json.dumps({"reason": "x", "header": HEADER, "raw": text}),
        ):
            path.write_text(body.replace("\n", " "))
            with suppress(SourceError, BatchError):
                list(repaired_batches(path))
        store = ResumeStore(Path(folder), "i", "a.csv")
        store.prepare()
        store.path.write_text(text)
        store.load()


def _texts(text: str) -> None:
    for read in (parse_time.__wrapped__, parse_duration, parse_value, parse_target):
        with suppress(ValueError, SourceError):
            read(text)
    for labels in (text, f'a="{text}"', f"{{{text}}}"):
        without_name(labels)
        with suppress(ValueError):
            split_labels(read_labels(labels).values)
    printable(text)
    hide_passwords(text)


# Reader -> what it is given, and the modules that it covers.
READERS: dict[str, tuple[Callable[[str], None], tuple[str, ...]]] = {
    "exposition": (_exposition, ("ingest/exporter/exposition.py", "ingest/exporter/lines.py")),
    "csv": (_csv, ("ingest/capture/arrow.py", "ingest/capture/smi.py")),
    "records": (_records, ("ingest/capture/rows.py",)),
    "headers": (_headers, ("ingest/capture/form.py",)),
    "batch": (_batch, ("readings/batch/message.py", "readings/batch/salvage.py")),
    "frames": (_frames, ("broker/protocol/frames.py", "broker/protocol/messages.py")),
    "log": (_log, ("broker/log/record.py", "broker/log/scan.py")),
    "influxdb": (_influxdb, ("stores/influxdb/answers.py",)),
    "files": (
        _files,
        (
            "ingest/parts.py",
            "ingest/dead_letters.py",
            "ingest/capture/position.py",
            "ingest/management/commands/rejects.py",
        ),
    ),
    "texts": (_texts, ("readings/times.py", "readings/labels.py", "readings/text.py", "ingest/exporter/targets.py")),
}
# Modules that decode or match, and read nothing from outside, or only what this program wrote in a small file of its own.
NO_READERS = {
    "broker/protocol/connection.py": "matches eight characters of a checksum, whole",
    "broker/client/protocol.py": "decodes frames that FrameReader cut, with msgspec alone",
    "broker/log/disk.py": "side files of the log, with a checksum",
    "broker/log/segment.py": "the index of a segment, in entries of one size",
    "ingest/capture/files.py": "the list of finished files",
    "ingest/collector/attempts.py": "one short note of the collector's own",
    "ingest/simulator/faults.py": "matches the faults that a setting names",
    "readings/catalogue.py": "the catalogue",
    "stores/rollups/influxdb.py": "hands answers to stores.influxdb.answers",
    "stores/rollups/sqlite.py": "what the store packed, with sizes that are checked",
    "stores/influxdb/client.py": "hands answers to stores.influxdb.answers",
    "stores/influxdb/influxql.py": "writes questions",
    "stores/influxdb/line_protocol.py": "writes lines",
    "stores/influxdb/writer.py": "matches the server's short reasons",
}
_READS = re.compile(
    r"json\.(loads|decode|Decoder)|msgpack\.Decoder|csv\.(reader|read_csv)|unpack_from|struct\.(unpack|Struct)|re\.compile"
)


def test_no_reader_is_forgotten() -> None:
    found = {
        str(path.relative_to(ROOT))
        for room in ("broker", "readings", "ingest", "stores")
        for path in (ROOT / room).rglob("*.py")
        if _READS.search(path.read_text())
    }
    listed = {module for _, modules in READERS.values() for module in modules}
    assert found <= listed | NO_READERS.keys(), (
        "a module that reads: add what it reads here, or say why it reads nothing"
    )
    assert [module for module in listed | NO_READERS.keys() if not (ROOT / module).exists()] == []


def measure(call: Callable[[str], None], text: str) -> float:
    began = time.process_time()
    call(text)
    return time.process_time() - began


def check(call: Callable[[str], None], make: Callable[[int], str]) -> None:
    small, large = make(SMALL), make(SMALL * FACTOR)
    times: list[tuple[float, float]] = []
    gc.disable()
    try:
        for _ in range(3):
            times.append((measure(call, small), measure(call, large)))
            low, high = (min(each) for each in zip(*times, strict=True))
            if high < NOISE_S + MOST_RATIO * low:
                return
    finally:
        gc.enable()
    pytest.fail(f"{len(small)} characters cost {low:.4f} s, {len(large)} cost {high:.4f} s")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_hostile_text_costs_in_proportion(shape: str, reader: str) -> None:
    check(READERS[reader][0], SHAPES[shape])


def _many(size: int) -> Iterator[tuple[str, Callable[[str], None], str]]:
    """Well-formed texts of many GPUs, metrics, parts, pods and reasons."""
    numbers = range(size // 80)
    lines = {
        "GPUs": ('m{{UUID="GPU-{0}-a",gpu="{0}"}} 1', "m", "GPU-{0}-a", "1"),
        "metrics": ('m{0}{{UUID="GPU-1-a",gpu="0"}} 1', "m{0}", "GPU-1-a", "1"),
        "pods": ('m{{UUID="GPU-1-a",gpu="0",pod="p{0}"}} 1', "m", "GPU-1-a", "1"),
        "links": ('m{{UUID="GPU-1-a",gpu="0",lane="{0}"}} 1', "m", "GPU-1-a", "1"),
        "values": ('m{{UUID="GPU-1-a",gpu="0"}} x{0}', "m", "GPU-1-a", "x{0}"),
    }
    for name, (line, metric, uuid, value) in lines.items():
        yield f"exposition of many {name}", _exposition_body, "\n".join(line.format(each) for each in numbers) + "\n"
        rows = [
            f"{1752871354 + each},{metric.format(each)},{uuid.format(each)},{value.format(each)}" for each in numbers
        ]
        yield f"csv of many {name}", _csv_body, "timestamp,metric_name,uuid,value\n" + "\n".join(rows) + "\n"
        readings = [
            {
                "timestamp": 1752871354,
                "metric_name": metric.format(each),
                "uuid": uuid.format(each),
                "value": value.format(each),
            }
            for each in numbers
        ]
        yield f"batch of many {name}", _batch_body, json.dumps({"metrics": readings})
    points = [[each, 5, [1, "x"]] for each in numbers]
    gpus = [{"uuid": f"GPU-{each}-a"} for each in numbers]
    yield (
        "compact batch of many bad points",
        _batch_body,
        json.dumps({"gpus": gpus, "metric_names": ["a", "b"], "points": points}),
    )
    names = [f"m{each}" for each in numbers]
    yield (
        "compact batch of many bad values",
        _batch_body,
        json.dumps({"gpus": gpus[:1], "metric_names": names, "points": [[0, 5, ["x"] * len(names)]]}),
    )
    yield (
        "batch of many reported reasons",
        _batch_body,
        json.dumps({"metrics": [], "refused": {f"r{each}": 1 for each in numbers}}),
    )
    smi = [f"2025/07/18 20:42:34.{each % 1000:03}, GPU-{each}-a, {each} W, P{each}" for each in numbers]
    yield "rows of nvidia-smi", _csv_body, SMI + "\n".join(smi) + "\n"
    yield "columns of nvidia-smi", _headers, "timestamp, uuid, power.draw, " + ", ".join(f"c{each}" for each in numbers)
    yield "columns of a capture", _headers, HEADER.strip() + "," + ",".join(f"c{each}" for each in numbers)


def _exposition_body(text: str) -> None:
    Exposition("h").read(text, 1)


def _csv_body(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_text(text)
        source = CsvSource(str(path), needs_timestamp=True)
        while not source.read().done:
            pass
        source.close()


def _batch_body(text: str) -> None:
    with suppress(BatchError):  # too many reasons
        decode(text.encode(), now_ns=10**18)


MANY = {name: call for name, call, _ in _many(800)}


@pytest.mark.parametrize("name", MANY)
def test_many_of_a_thing_cost_in_proportion(name: str) -> None:
    check(MANY[name], lambda size: next(text for each, _, text in _many(4 * size) if each == name))


def test_a_quadratic_reader_is_found() -> None:
    def read(text: str) -> None:
        for at in range(0, len(text), 32):
            sum(map(ord, text[at:]))

    with pytest.raises(pytest.fail.Exception, match="characters cost"):
        check(read, lambda size: "}" * size)
