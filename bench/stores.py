"""What the InfluxDB store adds to InfluxDB: writing and reading, beside what the server itself can do, in one run.

    python -m bench.stores                      # starts an influxd of its own in a temporary folder
    python -m bench.stores --readings 2000000

Writing: the same made-up fleet (256 GPUs, 10 metrics, a point a second) goes into four buckets, one flush of 50,000
readings after the other and each flush into all four, so that all share whatever else the machine does:

- wide ceiling: ready-made lines as the store's own, one line for a GPU and time, posted by a plain HTTP client;
- narrow ceiling: the same readings with a measurement for each metric, as one often sees it, posted likewise;
- store: decoded batches into the store's write();
- collector: messages as the broker gives them, decoded, checked and written, by the collector's own code.

Reading: the newest 100 readings of one GPU and metric, as the store's call and as the bare answer of the server.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import urllib3

from broker.client.client import Message
from ingest.collector.decode import BatchDecoder
from readings.batch import encode_block
from readings.model import Gpu, Point, PointBlock
from stores.base import ReadingsQuery
from stores.influxdb import InfluxStore
from stores.influxdb.client import InfluxConfig
from stores.influxdb.line_protocol import LineBuilder, escape, render
from stores.influxdb.writer import requests_of
from tests.influxd import Influxd

SECOND = 1_000_000_000
FLUSH = 50_000
LINES_A_REQUEST = 5_000
ROUNDS = 300
METRICS = [
    f"DCGM_FI_DEV_{name}"
    for name in (
        "GPU_UTIL", "GPU_TEMP", "POWER_USAGE", "FB_USED", "FB_FREE", "SM_CLOCK", "MEM_CLOCK", "MEM_COPY_UTIL",
        "ENC_UTIL", "DEC_UTIL",
    )
]  # fmt: skip


def fleet(count: int) -> list[Gpu]:
    """GPUs as a capture names them, each with a pod."""
    return [
        Gpu(
            uuid=f"GPU-{number:08x}-86f3-7a43-b711-4771313afc50",
            hostname=f"mtv5-dgx1-hgpu-{number // 8:03d}",
            gpu_id=number % 8,
            device=f"nvidia{number % 8}",
            model_name="NVIDIA H100 80GB HBM3",
            container="main",
            pod=f"train-{number}",
            namespace="ml",
        )
        for number in range(count)
    ]


def batches(gpus: Sequence[Gpu], total: int, start_ns: int) -> Iterator[PointBlock]:
    """A batch of all GPUs for each second. Most metrics are whole numbers, as DCGM's are; power is not."""
    chance = random.Random(1)
    highest = [100 if "UTIL" in name or "TEMP" in name else 1_900 if "CLOCK" in name else 80_000 for name in METRICS]
    power = METRICS.index("DCGM_FI_DEV_POWER_USAGE")
    for step in range(max(1, total // (len(gpus) * len(METRICS)))):
        points: list[Point] = []
        for place in range(len(gpus)):
            values: list[float | None] = [float(chance.randrange(most)) for most in highest]
            values[power] = round(chance.uniform(60, 700), 3)
            points.append((place, start_ns + step * SECOND + place * 1_000_003, values))
        yield PointBlock(list(gpus), METRICS, points)


class Plain:
    """The plain HTTP client."""

    def __init__(self, config: InfluxConfig) -> None:
        self._pool = urllib3.PoolManager()
        self._headers = {"Authorization": f"Token {config.token}"}
        self._write_url = f"{config.url}/api/v2/write?org={config.org}&bucket={config.bucket}&precision=ns"
        self._query_url = f"{config.url}/query"
        self._bucket = config.bucket

    def post(self, bodies: Sequence[bytes]) -> None:
        for body in bodies:
            answer = self._pool.request("POST", self._write_url, body=body, headers=self._headers)
            assert answer.status == 204, answer.data

    def query(self, statement: str, params: dict[str, str]) -> bytes:
        fields = {"q": statement, "params": json.dumps(params), "db": self._bucket, "epoch": "ns"}
        answer = self._pool.request(
            "POST", self._query_url, fields=fields, headers=self._headers, encode_multipart=False
        )
        assert answer.status == 200, answer.data
        return answer.data


def wide_lines(flush: Sequence[PointBlock]) -> list[bytes]:
    """The request bodies of a flush, one line for a GPU and time."""
    return [render(request) for request in requests_of(LineBuilder().tables(flush))]


def narrow_lines(flush: Sequence[PointBlock]) -> list[bytes]:
    """The request bodies of a flush with a measurement for each metric."""
    lines = []
    for block in flush:
        for index, time_ns, values in block.points:
            gpu = block.gpus[index]
            tags = (
                f"device={gpu.device},gpu_id={gpu.gpu_id},hostname={gpu.hostname},model={escape(gpu.model_name)},"
                f"uuid={gpu.uuid}"
            )
            lines += [
                f"{name},{tags} value={value!r} {time_ns}"
                for name, value in zip(block.metric_names, values, strict=True)
            ]
    return [
        "\n".join(lines[start : start + LINES_A_REQUEST]).encode() for start in range(0, len(lines), LINES_A_REQUEST)
    ]


def messages(flush: Sequence[PointBlock]) -> list[Message]:
    """A flush as the broker gives it: what a streamer published, ten GPUs' points to a message."""
    found = []
    for block in flush:
        for start in range(0, len(block.points), 10):
            points = block.points[start : start + 10]
            gpus = [block.gpus[index] for index, _, _ in points]
            part = PointBlock(gpus, block.metric_names, [(place, *point[1:]) for place, point in enumerate(points)])
            payload = encode_block(part, batch_id="b", source="bench", collected_at="2025-07-18T20:42:34Z")
            found.append(Message(0, 0, "", payload))
    return found


def collect(store: InfluxStore, received: Sequence[Message]) -> None:
    """What a collector does with messages, but for the inventory."""
    decoder = BatchDecoder(0)
    for message in received:
        decoder.take(message)
    pending = decoder.drain()
    assert not pending.refused, pending.refused
    store.write(pending.blocks)


def measure_writing(server: Influxd, gpus: Sequence[Gpu], readings: int, start_ns: int) -> InfluxConfig:
    """Print the rates; returns the settings of the bucket that the store wrote."""
    configs = {name: server.config() for name in ("wide ceiling", "narrow ceiling", "store", "collector")}
    stores = {name: InfluxStore(config) for name, config in configs.items()}
    for store in stores.values():
        store.ping()
    wide, narrow = Plain(configs["wide ceiling"]), Plain(configs["narrow ceiling"])
    spent: dict[str, list[float]] = {name: [] for name in configs}
    blocks = list(batches(gpus, readings, start_ns))
    a_flush = max(1, FLUSH // blocks[0].count())
    for number, first in enumerate(range(0, len(blocks), a_flush)):
        flush = blocks[first : first + a_flush]
        wide_bodies, narrow_bodies, received = wide_lines(flush), narrow_lines(flush), messages(flush)

        calls: dict[str, Callable[[], object]] = {
            "wide ceiling": partial(wide.post, wide_bodies),
            "narrow ceiling": partial(narrow.post, narrow_bodies),
            "store": partial(stores["store"].write, flush),
            "collector": partial(collect, stores["collector"], received),
        }
        names = list(calls)
        for name in names[number % 4 :] + names[: number % 4]:
            began = time.perf_counter()
            calls[name]()
            spent[name].append((time.perf_counter() - began) / sum(block.count() for block in flush))
    rates = {name: 1 / statistics.median(each) for name, each in spent.items()}
    for name, rate in rates.items():
        print(
            f"{name:<15} {rate:>10,.0f} readings/s (median of {len(spent[name])} flushes;"
            f" {1 / statistics.fmean(spent[name]):,.0f} on average)"
            f"   {rate / rates['wide ceiling']:5.2f} of the wide ceiling, {rate / rates['narrow ceiling']:5.2f} of the narrow"
        )
    for store in stores.values():
        store.close()
    return configs["store"]


def measure_reading(config: InfluxConfig, gpus: Sequence[Gpu]) -> None:
    """Print the times of one question, asked in turn of the store and of the server."""
    store, plain = InfluxStore(config), Plain(config)
    metric, chance = METRICS[0], random.Random(2)
    spent: dict[str, list[float]] = {"store": [], "bare answer": []}
    statement = f'SELECT "{metric}" FROM "gpu" WHERE "uuid" = $uuid ORDER BY time DESC LIMIT 100'
    for number in range(ROUNDS):
        uuid = chance.choice(gpus).uuid
        query = ReadingsQuery(gpus=(uuid,), metric_names=(metric,), limit=100)
        calls: dict[str, Callable[[], object]] = {
            "store": partial(store.page, query),
            "bare answer": partial(plain.query, statement, {"uuid": uuid}),
        }
        for name in sorted(calls, reverse=bool(number % 2)):
            began = time.perf_counter()
            answer = calls[name]()
            spent[name].append((time.perf_counter() - began) * 1e3)
            assert isinstance(answer, bytes) or len(answer) == 100  # type: ignore[arg-type]
    bare = statistics.median(spent["bare answer"])
    print(f"newest 100 readings of a GPU and metric, {ROUNDS} times:")
    for name, times in spent.items():
        p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
        print(f"    {name:<12} p50 {p50:6.2f} ms  p99 {p99:6.2f} ms   {p50 / bare:5.2f} of the bare answer")
    store.close()


def main() -> None:
    """Measure writing, then reading, on one server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=int, default=512_000, help="readings in each bucket [%(default)s: 200 s]")
    parser.add_argument("--gpus", type=int, default=256)
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to measure")
    options = parser.parse_args()
    found = subprocess.run(["ci/influxd.sh", "--find"], capture_output=True, text=True, check=False)
    if found.returncode:
        raise SystemExit("error: no influxd here: run make influxd")
    gpus = fleet(options.gpus)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-stores-") as name:
        server = Influxd(found.stdout.strip(), Path(name) / "influxd")
        try:
            server.start()
            config = measure_writing(server, gpus, options.readings, time.time_ns() - 3600 * SECOND)
            measure_reading(config, gpus)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
