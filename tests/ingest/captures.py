"""Small captures for tests, in the shape of real ones (sorted by metric, one time per metric); and the readings of files, logs and stores."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from broker.client.client import BrokerClient, Gap, Message
from ingest.capture.source import CsvSource
from ingest.samples import RefusedRow
from readings.batch import DecodedBatch, decode
from readings.columns import Columns, join
from readings.model import PointBlock
from readings.model import Reading as GpuReading
from readings.times import SECOND, format_time, parse_time
from stores.base import ReadingsQuery, Store

COLUMNS = (
    "timestamp", "metric_name", "gpu_id", "device", "uuid", "modelName", "Hostname", "container", "pod", "namespace",
    "value", "labels_raw",
)  # fmt: skip
METRICS = ("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE")
START = "2025-07-18T20:42:34Z"

# uuid, metric, time in ns, value
Reading = tuple[str, str, int, float]


def uuid_of(gpu: int) -> str:
    return f"GPU-{gpu:08x}-0000-4000-8000-000000000000"


def row(
    metric: str = METRICS[0], gpu: int = 0, time: str = START, value: object = "50", labels: str | None = None
) -> list[str]:
    """One row of the usual columns."""
    host = f"host-{gpu // 8:02}"
    if labels is None:
        labels = f'DCGM_FI_DRIVER_VERSION="535.129.03",Hostname="{host}",UUID="{uuid_of(gpu)}",__name__="{metric}",gpu="{gpu % 8}"'
    return [
        time, metric, str(gpu % 8), f"nvidia{gpu % 8}", uuid_of(gpu), "NVIDIA H100 80GB HBM3", host, "", "", "",
        str(value), labels,
    ]  # fmt: skip


def line(fields: Sequence[str]) -> str:
    """A row as text, every field quoted as in the real captures."""
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(fields)
    return text.getvalue()


def rows(gpus: int, samples: int = 1, start: str = START) -> Iterator[list[str]]:
    """``samples`` rounds, 10 seconds apart, of every metric of every GPU."""
    first = parse_time(start)
    for sample in range(samples):
        for number, metric in enumerate(METRICS):
            time = format_time(first + (10 * sample + number) * SECOND)
            for gpu in range(gpus):
                yield row(metric, gpu, time, 30 + (7 * gpu + 3 * number + sample) % 50)


def write_capture(path: Path, gpus: int = 4, samples: int = 1, start: str = START) -> Path:
    """A capture of gpus x 3 metrics x samples rows."""
    path.write_text(",".join(COLUMNS) + "\n" + "".join(map(line, rows(gpus, samples, start))))
    return path


class Read(NamedTuple):
    """What a source gave in several chunks."""

    columns: Columns
    refused: list[RefusedRow]
    counts: Counter[str]
    position: int
    line: int

    @property
    def readings(self) -> list[GpuReading]:
        return list(self.columns.readings())

    def flat(self) -> list[Reading]:
        return [(gpu.uuid, name, time_ns, value) for gpu, name, time_ns, value in self.readings]


def read_rest(source: CsvSource, max_rows: int | None = None) -> Read:
    """All rows that come, a block or ``max_rows`` at a time as at a pace, until the source is at its end."""
    chunks = [source.read(max_rows)]
    while not chunks[-1].done:
        chunks.append(source.read(max_rows))
    return Read(
        join([chunk.columns for chunk in chunks]),
        [row for chunk in chunks for row in chunk.refused],
        sum((chunk.counts for chunk in chunks), Counter()),
        chunks[-1].position,
        chunks[-1].line,
    )


def read_capture(path: Path | str, max_rows: int | None = None, *, needs_timestamp: bool = True) -> Read:
    """All rows of a capture."""
    source = CsvSource(str(path), needs_timestamp=needs_timestamp)
    try:
        return read_rest(source, max_rows)
    finally:
        source.close()


def readings_in(path: Path) -> set[Reading]:
    """What a good capture holds, read by nothing but the csv module."""
    with path.open(newline="") as file:
        return {
            (each["uuid"], each["metric_name"], parse_time(each["timestamp"]), float(each["value"]))
            for each in csv.DictReader(file)
        }


def stored_readings(store: Store) -> list[Reading]:
    """All readings of a store, each as often as it is there."""
    batch = store.page(ReadingsQuery(limit=1_000_000))
    return [
        (batch.origins[place].uuid, batch.origins[place].metric_name, time_ns, value)
        for time_ns, value, place in zip(batch.times, batch.values, batch.places, strict=True)
    ]


async def read_log(port: int) -> list[Message]:
    """All messages that are in the log now."""
    client = await BrokerClient.connect("127.0.0.1", port)
    messages: list[Message] = []
    try:
        if client.welcome.next > client.welcome.oldest:
            await client.subscribe("test-reader", -2)
            while not messages or messages[-1].offset < client.welcome.next - 1:
                for item in await client.receive():
                    assert not isinstance(item, Gap)
                    messages.append(item)
    finally:
        await client.close()
    return messages


async def read_batches(port: int) -> list[DecodedBatch]:
    """All batches that are in the log now."""
    return [decode(message.payload) for message in await read_log(port)]


def readings_of(blocks: Iterable[PointBlock]) -> list[Reading]:
    """The readings of blocks, each as often as it is there."""
    return [
        (block.gpus[index].uuid, name, time_ns, value)
        for block in blocks
        for index, time_ns, values in block.points
        for name, value in zip(block.metric_names, values, strict=True)
        if value is not None
    ]
